"""What the composed verbs share: the run record, its ending, the data of a finished run, measuring stored networks."""
