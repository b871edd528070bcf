"""`align agent`: classic agents from the command line. One command an algorithm, its help lists every setting."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from pipeline.config import (
    AGENTS,
    AgentConfig,
    AlphaZeroConfig,
    ConfigError,
    TrainedConfig,
    agent_file,
    load_agent,
    read_agent,
)
from pipeline.progress import say

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help=(
        "Classic agents on gymnasium tasks, and self-play on board games, from the RL core that also trains the "
        "language model.\n\n"
        "`align agent ppo CartPole-v1`, `align agent maze`, `align agent q_learning Taxi-v3 seeds=5`, "
        "`align agent alphazero connect_four`. "
        "`align agent ppo --help` lists the settings; tuned ones are in configs/agents/."
    ),
)

Environment = Annotated[
    str, typer.Argument(metavar="ENV", help="gymnasium id: CartPole-v1, ALE/Pong-v5, MinAtar/Breakout-v1, Maze-v0")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="run_dir=PATH, seed=N, any setting below; values are YAML"),
]
Force = Annotated[bool, typer.Option("--force", help="Train again what is finished and unchanged.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Last line: mean_return, terminated, episodes, steps, steps_per_second, …")
]
BoardGame = Annotated[
    str, typer.Argument(metavar="GAME", help="tic_tac_toe, connect_four, gomoku, or pettingzoo:connect_four_v3")
]
BoardJson = Annotated[
    bool, typer.Option("--json", help="Last line: wins, draws, losses and scores by opponent, elo, first_move.")
]
Render = Annotated[Path | None, typer.Option("--render", help="Film an episode into this .gif or .mp4.")]


def settings(model: type[BaseModel]) -> str:
    """Every setting with its default and meaning, for `--help`."""
    lines = []
    for name, field in model.model_fields.items():
        if name in ("environment", "algorithm"):
            continue
        default = field.get_default(call_default_factory=True)
        meaning = f" · {field.description}" if field.description else ""
        lines.append(f"- **{name}** = {json.dumps(default)}{meaning}")
    return "\n".join(lines)


def _algorithm(name: str, model: type[TrainedConfig]) -> None:
    def command(
        environment: Environment,
        overrides: Overrides = None,
        force: Force = False,
        as_json: AsJson = False,
        render: Render = None,
    ) -> None:
        _train(name, environment, overrides, force, as_json, render)

    def board_game(
        environment: BoardGame, overrides: Overrides = None, force: Force = False, as_json: BoardJson = False
    ) -> None:
        _learn_game(name, environment, overrides, force, as_json)

    summary = (model.__doc__ or "").strip()
    about = f"{summary}\n\nSettings:\n\n{settings(model)}"
    app.command(name, help=about, short_help=summary)(board_game if issubclass(model, AlphaZeroConfig) else command)


for _name, _model in AGENTS.items():
    _algorithm(_name, _model)


@app.command()
def maze(overrides: Overrides = None, force: Force = False, as_json: AsJson = False, render: Render = None) -> None:
    """Q-learning in a maze, drawn three ways: policy, values, learned model with a plan on it; and a film of a run.

    Your own maze: `options.file=maze.txt` (`#` wall, `S` start, `G` goal); a random one: `options.size=[6,10]`
    `options.loops=0.1` `options.seed=3`. All settings of `align agent q_learning` work.
    """
    _train("q_learning", "Maze-v0", overrides, force, as_json, render)


@app.command()
def play(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of an agent, such as runs/ppo-CartPole-v1")],
    episodes: Annotated[int, typer.Option(min=1, help="How many, of a gymnasium task.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the environment, or of ties in a search.")] = 0,
    render: Render = None,
    window: Annotated[bool, typer.Option("--window", help="Watch it live.")] = False,
    second: Annotated[bool, typer.Option("--second", help="Board games: it begins.")] = False,
    simulations: Annotated[
        int | None, typer.Option(min=1, help="Board games: of each search; default as in its evaluation.")
    ] = None,
    generation: Annotated[int | None, typer.Option(min=0, help="Board games: an earlier self.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Board games: each event as a line of JSON.")] = False,
) -> None:
    """Let a trained agent act greedily, and watch; or play a board game against it.

    Moves are read from the terminal, or line by line from standard input.
    """
    if (run / "config.yaml").is_file() and isinstance(read_agent(run / "config.yaml"), AlphaZeroConfig):
        _play_against(run, second, simulations, generation, seed, as_json)
        return
    from pipeline.agents.runs import play as play_run

    totals = play_run(run, episodes=episodes, seed=seed, film_path=render, window=window)
    for number, total in enumerate(totals, start=1):
        typer.echo(f"episode {number}: return {total:g}")
    typer.echo(f"mean of {len(totals)}: {sum(totals) / len(totals):g}")
    if render is not None:
        say(f"film: {render}")


def _play_against(
    run: Path, second: bool, simulations: int | None, generation: int | None, seed: int, as_json: bool
) -> None:
    from pipeline.selfplay import board

    game, agent = board.opponent(run, generation=generation, simulations=simulations, seed=seed)
    tell = board.as_json(typer.echo) if as_json else board.for_people(Console())

    def ask() -> str | None:
        if sys.stdin.isatty():
            typer.echo("your move: ", nl=False, err=as_json)
        return sys.stdin.readline() or None

    if board.play_game(game, agent, begin=not second, ask=ask, tell=tell) is None:
        say("no more moves: the game is left as it is")


@app.command()
def compare(
    environment: Environment,
    variants: Annotated[
        list[str],
        typer.Argument(
            metavar="VARIANT... [KEY=VALUE]...", help="`ppo`, or `dqn:replay=false,double=true`; settings for all"
        ),
    ],
    force: Force = False,
) -> None:
    """Train several algorithms, or variants of one, on a task, and draw them in one figure.

    `align agent compare CartPole-v1 ppo a2c dqn seeds=5`; what replay and target network are for:
    `align agent compare CartPole-v1 dqn dqn:replay=false dqn:target_network=false seeds=3`.
    `run_dir=PATH` holds a folder for each variant and compare.png.
    """
    from pipeline.agents.runs import compare as compare_runs

    names = [one for one in variants if "=" not in one.partition(":")[0]]
    shared = [one for one in variants if one not in names and not one.startswith("run_dir=")]
    places = [one.removeprefix("run_dir=") for one in variants if one.startswith("run_dir=")]
    folder = Path([f"runs/compare-{environment.replace('/', '-')}", *places][-1])
    if not names:
        raise ConfigError("compare: name at least one variant, such as ppo or dqn:replay=false")
    configs = {}
    for name in names:
        algorithm, _, own = name.partition(":")
        keys = [key for key in own.split(",") if key]
        place = folder / name.replace(":", "-").replace(",", "-").replace("/", "-")
        config = load_agent(algorithm, environment, [*shared, *keys, f"run_dir={place}"])
        if not isinstance(config, AgentConfig):
            raise ConfigError(
                f"compare: {algorithm} plays board games, and elo.png compares it with its earlier selves"
            )
        configs[name] = config
    path = folder / "compare.png"
    results = compare_runs(configs, path, force=force)
    table = Table("variant", "mean return", "each seed", "steps/s", title=environment)
    for name, result in results.items():
        each = "  ".join(f"{value:.4g}" for value in result["returns"])
        table.add_row(name, f"{result['mean_return']:.4g}", each, f"{result['steps_per_second']:,.0f}")
    Console().print(table)
    say(f"figure: {path}")


def _train(
    algorithm: str, environment: str, overrides: list[str] | None, force: bool, as_json: bool, render: Path | None
) -> None:
    logging.basicConfig(format="%(message)s")
    config = load_agent(algorithm, environment, overrides or ())
    assert isinstance(config, AgentConfig)
    tuned = agent_file(algorithm, environment)
    say(f"{algorithm} on {environment}, {tuned or 'default settings'}")
    from pipeline.agents.runs import play as play_run
    from pipeline.agents.runs import run

    figures = run(config, force=force)
    folder = Path(str(config.run_dir))
    if render is not None:
        play_run(folder, episodes=1, seed=config.seed, film_path=render, window=False)
    _say(figures, config, folder, render)
    if as_json:
        typer.echo(json.dumps(figures))


def _say(figures: dict[str, Any], config: AgentConfig, folder: Path, render: Path | None) -> None:
    each = "" if config.seeds == 1 else f" (each seed: {'  '.join(f'{value:.4g}' for value in figures['returns'])})"
    say(
        f"mean return over {config.evaluation_episodes} episodes: [bold]{figures['mean_return']:.4g}[/bold]{each}; "
        f"{figures['terminated']:.0%} of them ended before a clock did; {figures['steps_per_second']:,.0f} steps/s"
    )
    drawn = [path for name in ("curve.png", "maze.png", "film.gif") if (path := folder / name).is_file()]
    say(f"pictures: {', '.join(map(str, [*drawn, *([render] if render else [])]))}")


def _learn_game(algorithm: str, game: str, overrides: list[str] | None, force: bool, as_json: bool) -> None:
    config = load_agent(algorithm, game, overrides or ())
    assert isinstance(config, AlphaZeroConfig)
    say(f"{algorithm} on {game}, {agent_file(algorithm, game) or 'default settings'}")
    from pipeline.selfplay.runs import run

    figures = run(config, force=force)
    table = Table("against", "wins", "draws", "losses", "score", "95 %", title=f"{game}: {config.run_dir}")
    for name in (key.removesuffix(".score") for key in figures if key.endswith(".score")):
        row = {key: figures[f"{name}.{key}"] for key in ("wins", "draws", "losses", "score", "score_low", "score_high")}
        counts = (str(row[key]) for key in ("wins", "draws", "losses"))
        table.add_row(name, *counts, f"{row['score']:.3f}", f"{row['score_low']:.3f}–{row['score_high']:.3f}")
    Console(stderr=True).print(table)
    say(f"first move: {figures['first_move']}; pictures: {Path(str(config.run_dir)) / 'elo.png'}")
    if as_json:
        typer.echo(json.dumps(figures))
