"""Whole runs of agents: several seeds into one folder, its figures, and comparisons of folders.

RUN/
  config.yaml                                         the resolved settings
  seed-0/ metrics.jsonl agent.safetensors result.json one folder a seed
  curve.png                                           learning, with an interval over seeds
  maze.png film.gif strip.png                         of a maze
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.agents import film
from pipeline.agents.figures import Curve, learning_curves, maze_views
from pipeline.agents.maze import Maze
from pipeline.agents.tabular import TabularAgent
from pipeline.agents.training import load, train
from pipeline.config import AgentConfig, dump_config, read_agent
from pipeline.progress import bar, by_total
from pipeline.rl.planning import value_iteration
from pipeline.rundir import RunDir, RunError, StageResult, fingerprint, read_jsonl

NOT_DECISIVE = {"seeds", "workers", "run_dir", "progress"}  # settings that change no single seed's outcome
_done: Any = None  # environment steps of each seed, shared with the processes that train them


def run(config: AgentConfig, *, force: bool = False) -> dict[str, Any]:
    """Train all seeds that aren't finished, draw the figures; returns what `--json` prints.

    Raises:
        AgentError: if environment and algorithm don't fit.
        RunError: if the folder can't be written.
    """
    assert config.run_dir is not None
    folder = RunDir(config.run_dir)
    folder.create(dump_config(config))
    seeds = [config.model_copy(update={"seed": config.seed + offset}) for offset in range(config.seeds)]
    open_seeds = [one for one in seeds if force or result_of(folder, one) is None]
    title = f"{config.algorithm} on {config.environment}"
    with bar(title, config.steps * len(open_seeds), visible=config.progress) as progress:
        if len(open_seeds) == 1:
            _train_here(folder, open_seeds[0], progress.advance)
        elif open_seeds:
            _train_apart(folder, open_seeds, progress.advance)
    results = [result for one in seeds if (result := result_of(folder, one)) is not None]
    learning_curves({str(config.algorithm): curves(folder.path)}, title, folder.path / "curve.png")
    if config.environment == "Maze-v0":
        draw_maze(config, folder.path)
    return figures(results)


def figures(results: Sequence[StageResult]) -> dict[str, Any]:
    """What `--json` prints: means over the seeds, sums of episodes, steps and seconds, and each seed's return.

    `terminated` is the share of evaluation episodes that ended by what happened and not by a clock: a crash, a fall.
    """
    returns = [result.metrics["mean_return"] for result in results]
    return {
        "mean_return": fmean(returns),
        "terminated": fmean(result.metrics["terminated"] for result in results),
        "episodes": sum(result.metrics["episodes"] for result in results),
        "steps": sum(result.metrics["steps"] for result in results),
        "steps_per_second": fmean(result.metrics["steps_per_second"] for result in results),
        "seconds": sum(result.seconds for result in results),
        "returns": returns,
    }


def result_of(folder: RunDir, config: AgentConfig) -> StageResult | None:
    """The result of one seed, if it was trained with these very settings."""
    result = folder.result(f"seed-{config.seed}")
    return result if result is not None and result.fingerprint == print_of(config) else None


def print_of(config: AgentConfig) -> str:
    """A hash of everything that decides one seed's outcome."""
    return fingerprint(config.model_dump(exclude=NOT_DECISIVE))


def curves(folder: Path) -> list[Curve]:
    """The learning curve of every finished seed in a run folder."""
    found = []
    for path in sorted(folder.glob("seed-*/result.json")):
        rows = [row for row in read_jsonl(path.with_name("metrics.jsonl")) if "return" in row]
        if rows:
            found.append(Curve([row["step"] for row in rows], [row["return"] for row in rows]))
    return found


def play(run_dir: Path, *, episodes: int, seed: int, film_path: Path | None, window: bool) -> list[float]:
    """Greedy episodes of a run's first agent; returns their returns, and films the first where a path is given.

    Raises:
        RunError: if the folder holds no finished agent.
        AgentError: if it can't be shown as asked.
    """
    nothing = RunError(f"{run_dir} holds no finished agent; train one with `align agent ALGO ENV run_dir={run_dir}`")
    if not (run_dir / "config.yaml").is_file():
        raise nothing
    config = read_agent(run_dir / "config.yaml")
    if not isinstance(config, AgentConfig):
        raise nothing
    folder = run_dir / f"seed-{config.seed}"
    if not (folder / "result.json").is_file():
        raise nothing
    agent, env = load(config, folder, "human" if window else "rgb_array")
    frames: list[film.Frame] | None = [] if film_path is not None else None
    totals = []
    for episode in range(episodes):
        totals.append(film.play(agent, env, seed=seed + episode, frames=frames if episode == 0 else None))
    if frames and film_path is not None:
        film.save(frames, film_path, fps=int(env.metadata.get("render_fps") or 30))
    env.close()
    return totals


def compare(configs: Mapping[str, AgentConfig], path: Path, *, force: bool = False) -> dict[str, dict[str, Any]]:
    """Train what isn't finished, and draw all in one figure at `path`; returns the figures by name."""
    results = {name: run(config, force=force) for name, config in configs.items()}
    first = next(iter(configs.values()))
    series = {name: curves(Path(str(config.run_dir))) for name, config in configs.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    learning_curves(series, first.environment, path)
    return results


def draw_maze(config: AgentConfig, folder: Path) -> None:
    """The maze's three views, a film and a strip of one run through it."""
    agent, env = load(config, folder / f"seed-{config.seed}")
    maze = env.unwrapped
    assert isinstance(maze, Maze)
    if isinstance(agent, TabularAgent):
        seen = agent.visits > 0
        planned = None
        if agent.model is not None:
            gamma = min(config.gamma, 0.999)  # with 1, cells from which no known way leads on had no value
            # A move never tried is worth as little as never arriving: the plan keeps to what is known.
            model = agent.model.estimate(unseen=-1.0 / (1.0 - gamma))
            planned = value_iteration(*model, gamma=gamma).amax(dim=1)
        maze_views(maze, agent.q, folder / "maze.png", seen=seen, planned=planned)
    frames: list[film.Frame] = []
    film.play(agent, env, seed=config.seed, frames=frames)
    film.save(frames, folder / "film.gif", fps=maze.metadata["render_fps"])
    film.strip(frames, folder / "strip.png")


def _train(folder: RunDir, config: AgentConfig, report: Callable[[int, dict[str, float]], None]) -> StageResult:
    return train(config, folder.open_stage(f"seed-{config.seed}", print_of(config)), report)


def _train_here(folder: RunDir, config: AgentConfig, advance: Callable[..., None]) -> None:
    report = by_total(advance)
    _train(folder, config, lambda steps, shown: report(min(steps, config.steps), shown))


def _train_apart(folder: RunDir, configs: Sequence[AgentConfig], advance: Callable[..., None]) -> None:
    """A process a seed, as many at once as there are cores."""
    context = multiprocessing.get_context("spawn")
    done = context.Array("q", len(configs))
    workers = min(len(configs), configs[0].workers or os.cpu_count() or 1)
    before = 0
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_share, initargs=(done,)) as pool:
        waiting: set[Future[None]] = {
            pool.submit(_train_one, folder, config, place) for place, config in enumerate(configs)
        }
        while waiting:
            finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            total = sum(done[:])
            advance(total - before)
            before = total
            for future in finished:
                try:
                    future.result()  # raises what the seed raised
                except BrokenProcessPool:
                    raise RunError(
                        f"a training process died (out of memory?); finished seeds are kept in {folder.path}, "
                        "the same command goes on; workers=1 trains one at a time"
                    ) from None


def _share(done: Any) -> None:
    global _done
    _done = done


def _train_one(folder: RunDir, config: AgentConfig, place: int) -> None:
    def report(steps: int, shown: dict[str, float]) -> None:
        _done[place] = min(steps, config.steps)

    _train(folder, config, report)
