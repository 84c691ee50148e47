"""`griffon-shards overlap`: images that stand in a training set and in an evaluation set, by three keys."""
