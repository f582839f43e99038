"""Pictures of runs and sweeps, one kind per file."""
