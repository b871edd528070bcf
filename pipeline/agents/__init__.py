"""Classic agents on gymnasium tasks: they act and loop; every formula is `pipeline.rl`'s."""
