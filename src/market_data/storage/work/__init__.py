"""What the platform knows of its own work: jobs, logs, keys, alerts, quarantine."""
