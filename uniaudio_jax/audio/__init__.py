"""Audio files and spectra: one way in and out."""
