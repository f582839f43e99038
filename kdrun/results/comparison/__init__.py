"""The comparison of one run: its rows, their pairs by seed, the verdict, and the tables."""
