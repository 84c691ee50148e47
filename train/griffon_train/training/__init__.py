"""The training loop: a thin one over a DeepSpeed engine, and what it needs to resume exactly."""
