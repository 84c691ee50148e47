"""Offline conversion: manifests and published annotations in, frozen WebDataset shards out."""
