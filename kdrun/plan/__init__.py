"""From a composed configuration to its trainings, in waves, checked before anything trains."""
