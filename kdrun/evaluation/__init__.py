"""What can be computed from the stored logits of a trained network, in numpy, a theme per file."""
