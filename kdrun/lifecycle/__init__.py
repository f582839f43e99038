"""Code shared by the composed verbs: a run's record and ending, the data of a finished run, measuring its networks."""
