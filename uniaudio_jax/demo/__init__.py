"""A page on this machine to try a run's tasks with one's own words, recordings and tunes."""
