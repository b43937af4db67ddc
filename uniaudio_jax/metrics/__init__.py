"""Metrics of what was generated, one file each; `registry.py` lists them."""
