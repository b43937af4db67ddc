"""A run as a folder that needs PyTorch and safetensors alone: weights, code, ids, a model card and a certificate."""
