"""Corpora, tokenizers, dataset builders, packing plans and batches."""

import uniaudio_jax  # noqa: F401  Ctrl-C ends its commands in order from here on
