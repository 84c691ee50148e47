"""How two frozen sets differ: their locks, their rows, and the samples that changed."""
