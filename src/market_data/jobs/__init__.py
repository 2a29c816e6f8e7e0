"""When work runs: a durable queue, workers that do what is in it, and the schedule that fills it."""
