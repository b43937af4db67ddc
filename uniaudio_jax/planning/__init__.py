"""What a training would need on a slice that one has not got: programs compiled ahead of time, and estimates."""
