"""Model and training loop over frozen shard sets. The loader, the model and the loop arrive with their own issues."""
