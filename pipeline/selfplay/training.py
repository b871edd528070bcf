"""The loop: play against oneself, learn from it, and play on with what was learned.

RUN/
  config.yaml                          the resolved settings
  selfplay/
    metrics.jsonl                      one row a generation
    generation-0007.safetensors        the weights that generation's learning came to
    state.safetensors                  what the next generation needs
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.atomic import file_atomically
from pipeline.config import AlphaZeroConfig
from pipeline.games import Game
from pipeline.rl.search import Puct
from pipeline.rundir import RunError, StageDir
from pipeline.selfplay.arena import match
from pipeline.selfplay.episodes import SearchSettings, self_play
from pipeline.selfplay.learning import Learner
from pipeline.selfplay.network import NetworkJudge, PolicyValueNetwork
from pipeline.selfplay.players import SearchPlayer

STAGE, STATE = "selfplay", "state.safetensors"
OPENING = 4  # plies that two networks draw by their visits when they meet, so that games differ
PLAYING, LEARNING, GATE, EVALUATION = range(4)  # what a random number is for

Report = Callable[[int, dict[str, float]], None]  # (generations done, figures that matter)


def train(game: Game, config: AlphaZeroConfig, out: StageDir, decisive: str, report: Report) -> None:
    """All generations that `out` doesn't hold yet. Each depends on what came before it and on its number only, so that
    an interrupted training goes on to the same bits.

    Args:
        game: the rules.
        config: settings.
        out: the folder, which may hold what an interrupted training left.
        decisive: a fingerprint of the settings on which the training depends.
        report: called after each generation, and before the first.

    Raises:
        RunError: if what an interrupted training left can't be read.
    """
    learner = Learner(game, config)
    done, playing = _restore(learner, out)
    if not done:
        _save(learner.average.state_dict(), weights_path(out.path, 0))
    report(done, {})
    while done < config.generations:
        row = _generation(game, config, learner, done, load_network(game, config, weights_path(out.path, playing)))
        done += 1
        _save(learner.average.state_dict(), weights_path(out.path, done))
        if row.get("gate_score", 1.0) >= (config.gate or 0.0):
            playing = done
        out.log(done, {**row, "playing": playing})
        position = {name: repr(value) for name, value in out.position().items()}
        noted = {"done": str(done), "playing": str(playing), "decisive": decisive}
        _save(learner.state(), out.path / STATE, noted | position)
        report(done, {name: row[name] for name in ("policy_loss", "value_loss", "games_per_minute")})


def _generation(
    game: Game, config: AlphaZeroConfig, learner: Learner, done: int, network: PolicyValueNetwork
) -> dict[str, float]:
    """Self-play by `network`, learning, and the gate if there is one; the row of metrics.jsonl."""
    judge = NetworkJudge(game, network, precision=config.precision)
    started = time.perf_counter()
    record = self_play(game, judge, config.games, search_settings(config), random_numbers(config, done, PLAYING))
    playing = time.perf_counter() - started
    learner.take_in(record.examples)
    learned = learner.learn(len(record.examples), done / config.generations, random_numbers(config, done, LEARNING))
    learning = time.perf_counter() - started - playing
    assert learner.window is not None
    row = {
        "positions": len(record.examples),
        "window": len(learner.window),
        "plies": record.plies / config.games,
        "first_wins": record.first_wins / config.games,
        "draws": record.draws / config.games,
        "games_per_minute": 60 * config.games / playing,
        "simulations_per_second": record.simulations / playing,
        "judged_share": judge.judged / judge.asked,
        "playing_seconds": playing,
        "learning_seconds": learning,
        **learned,
    }
    if config.gate is not None:
        row["gate_score"] = _gate(game, config, learner, judge, random_numbers(config, done, GATE))
    return row


def _gate(game: Game, config: AlphaZeroConfig, learner: Learner, best: NetworkJudge, rng: np.random.Generator) -> float:
    """Score of what was learned against the network that played."""
    fresh = NetworkJudge(game, learner.average, precision=config.precision)
    one, other = (
        SearchPlayer(game, judge, rule(config), config.simulations, rng, opening=OPENING) for judge in (fresh, best)
    )
    return match(game, one, other, config.gate_games).figures()["score"]


def rule(config: AlphaZeroConfig) -> Puct:
    """Which way its searches go."""
    return Puct(config.exploration, config.first_play)


def search_settings(config: AlphaZeroConfig) -> SearchSettings:
    """What self-play needs of the config."""
    return SearchSettings(
        rule(config),
        config.simulations,
        config.fast_simulations,
        config.full_share,
        config.noise_share,
        config.noise_alpha,
        config.temperature,
        config.temperature_end,
        config.temperature_halving,
    )


def weights_path(folder: Path, generation: int) -> Path:
    """Where the weights are that a generation's learning came to; 0 = before all learning."""
    return folder / f"generation-{generation:04d}.safetensors"


def load_network(game: Game, config: AlphaZeroConfig, path: Path) -> PolicyValueNetwork:
    """A saved network. Raises RunError if the file isn't there or holds none of this config."""
    network = PolicyValueNetwork(game, channels=config.channels, blocks=config.blocks)
    try:
        network.load_state_dict(load_file(path))
    except (OSError, RuntimeError, SafetensorError) as problem:
        raise RunError(f"{path} can't be loaded: {str(problem).splitlines()[0]}") from None
    return network


def notes(folder: Path) -> dict[str, str]:
    """What the state of an interrupted or finished training says beside its tensors; empty if there is none.

    Raises:
        RunError: if it can't be read.
    """
    path = folder / STATE
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as problem:
        raise RunError(f"{path} can't be read: {str(problem).splitlines()[0]}; use --force") from None


def plays(folder: Path) -> int:
    """The generation that plays: the newest, or with a gate the last that passed it. Raises RunError without any."""
    noted = notes(folder)
    if "playing" not in noted:
        raise RunError(f"{folder} has no generation yet; train some with `align agent alphazero GAME run_dir=…`")
    return int(noted["playing"])


def _restore(learner: Learner, out: StageDir) -> tuple[int, int]:
    """Generations done and the one that plays; 0, 0 and an empty folder where there is nothing to go on from."""
    noted = notes(out.path)
    if not noted:
        out.rewind(None)
        return 0, 0
    try:
        position = {name: float(value) for name, value in noted.items() if name != "decisive"}
        out.check(position)
        learner.restore(load_file(out.path / STATE))
    except (KeyError, RuntimeError, ValueError) as problem:
        raise RunError(f"{out.path} can't be gone on from: {str(problem).splitlines()[0]}; use --force") from None
    out.rewind(position)
    return int(position["done"]), int(position["playing"])


def _save(tensors: dict[str, Tensor], path: Path, notes: dict[str, str] | None = None) -> None:
    with file_atomically(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, notes)


def random_numbers(config: AlphaZeroConfig, generation: int, purpose: int) -> np.random.Generator:
    """Of a generation, for one purpose: they depend on nothing that came before."""
    return np.random.default_rng([config.seed, generation, purpose])
