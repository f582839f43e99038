"""From a composed configuration to the trainings that it asks for, in waves, checked before anything trains."""
