"""A sweep: its cells, the choice among them, and its table."""
