"""Building a shard set: the plan, the jobs, the folder, the last step."""
