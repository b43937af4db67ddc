"""Corpora, tokenizers, dataset builders, packing plans and batches."""
