"""Whole runs: train, or go on training; then find out how strong it became."""

import dataclasses
from typing import Any

import torch

from pipeline.config import AlphaZeroConfig, dump_config
from pipeline.games import Game, make_game
from pipeline.progress import bar, by_total
from pipeline.rundir import RunDir, RunError, StageDir, fingerprint
from pipeline.selfplay.figures import elo_curve
from pipeline.selfplay.rating import elo, first_move, matches, strength
from pipeline.selfplay.training import STAGE, notes, train

# Settings that change nothing of what is learned; the evaluation's may change and be repeated without training.
NOT_DECISIVE = {"run_dir", "progress"}
EVALUATION_ONLY = {
    "evaluation_games",
    "evaluation_simulations",
    "opponent_simulations",
    "elo_generations",
    "elo_games",
}


def run(config: AlphaZeroConfig, *, force: bool = False) -> dict[str, Any]:
    """Train what isn't trained, evaluate what isn't evaluated; returns what `--json` prints.

    Raises:
        GameError: if there is no such game.
        RunError: if the folder can't be written, or holds a training with other settings.
    """
    assert config.run_dir is not None
    game = make_game(config.environment, config.options)
    folder = RunDir(config.run_dir)
    decisive = fingerprint(config.model_dump(exclude=NOT_DECISIVE))
    done = folder.result(STAGE)
    if done is not None and done.fingerprint == decisive and not force:
        return done.metrics
    learned = fingerprint(config.model_dump(exclude=NOT_DECISIVE | EVALUATION_ONLY))
    if not force and notes(folder.path / STAGE).get("decisive", learned) != learned:
        raise RunError(f"{folder.path} holds a training with other settings; set run_dir=PATH, or use --force")
    folder.create(dump_config(config))
    out = folder.open_stage(STAGE, decisive, resume=not force)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # batches this small only lose by sharing
    try:
        return _train_and_rate(game, config, folder, out, learned)
    finally:
        torch.set_num_threads(threads)


def _train_and_rate(game: Game, config: AlphaZeroConfig, folder: RunDir, out: StageDir, learned: str) -> dict[str, Any]:
    with bar(f"alphazero on {config.environment}", config.generations, visible=config.progress) as progress:
        train(game, config, out, learned, by_total(progress.advance))
    with bar("evaluation", matches(game, config, out.path), visible=config.progress) as progress:
        figures, known = strength(game, config, out.path, progress.advance)
        found = elo(game, config, out.path, known, progress.advance)
    return out.finish(figures | _figures(game, config, folder, found)).metrics


def _figures(game: Game, config: AlphaZeroConfig, folder: RunDir, found: dict[str, Any]) -> dict[str, Any]:
    """The rest of the figures, and the picture."""
    table = {name: dataclasses.asdict(one) for name, one in found.items()}
    title = f"{config.environment}: {config.evaluation_simulations} simulations a move"
    elo_curve(table, title, folder.path / "elo.png")
    return {"first_move": first_move(game, config, folder.path / STAGE), "elo": table}
