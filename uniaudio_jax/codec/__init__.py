"""Waveforms to codes and back: layouts, residual vector quantiser, files, training."""
