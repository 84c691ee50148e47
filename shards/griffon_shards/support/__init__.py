"""What all three packages share that is no part of the shard format."""
