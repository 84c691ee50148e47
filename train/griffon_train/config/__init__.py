"""Settings of a training run: what they are, where each comes from, and what DeepSpeed is given."""
