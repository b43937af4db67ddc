"""What evaluate.py is made of: examples and their originals, rows, intervals, tables, the comparison of two runs."""
