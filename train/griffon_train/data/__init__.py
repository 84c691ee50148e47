"""The order of samples, and loading them from frozen sets into batches."""
