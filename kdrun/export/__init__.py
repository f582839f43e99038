"""Networks as files of their own: safetensors, ONNX and torch.export, each held against the network it was made of."""
