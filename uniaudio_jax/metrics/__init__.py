"""Measures of generated waveforms."""
