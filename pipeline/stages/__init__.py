"""The stages of a run. Each is `run(config, run) -> StageResult` and reads its predecessors' results only."""
