"""What can be said of a trained network, a theme per file: from its stored logits in numpy, or by running it again."""
