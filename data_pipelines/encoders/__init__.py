"""Frozen encoders whose outputs are tokens or conditions: Whisper, HuBERT, T5 and MiniLM."""
