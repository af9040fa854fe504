"""Training: the loop, the objectives, the optimizer, the log, and the run folder."""
