"""What the benchmarks beside TRL share."""
