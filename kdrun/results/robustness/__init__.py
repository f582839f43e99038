"""The robustness of the networks of one run: rows, pairs and the verdict."""
