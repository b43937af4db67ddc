"""The model in plain PyTorch, which conversions are checked against."""
