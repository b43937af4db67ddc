"""A page to read, hear and vote on what evaluations of one or more runs have written."""
