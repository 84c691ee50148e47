"""Settings of a training run, where each value comes from, and the DeepSpeed configuration."""
