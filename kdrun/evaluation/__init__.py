"""Numbers computed in numpy from the stored logits of a trained network, one theme per file."""
