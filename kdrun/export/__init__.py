"""Networks as files: safetensors, ONNX and torch.export, each checked against the network that it was made from."""
