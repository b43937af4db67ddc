"""Tokenizers of text: one file per modality. Audio goes through the codec."""
