"""The model and the codec's decoder in plain PyTorch: files that are copied beside exported weights."""
