"""Numbers from stored logits, without a second run over the data: pure numpy functions, a theme per file."""
