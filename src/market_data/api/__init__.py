"""The HTTP interface: thin routes over readers, summaries and the job queue."""
