"""A game against a trained network in the terminal, with the search's view of every move."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.config import AlphaZeroConfig, read_agent
from pipeline.games import Game, GameError, Ints, find_action, make_game
from pipeline.rundir import RunError
from pipeline.selfplay.network import NetworkJudge
from pipeline.selfplay.players import SearchPlayer
from pipeline.selfplay.training import STAGE, load_network, plays, rule, weights_path
from pipeline.selfplay.tree import Trees

SHOWN = 7  # moves of a table
AHEAD = 6  # moves of a line

Ask = Callable[[], str | None]  # a move's label; None = no more will come
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class View:
    """What a search thinks of one move: share of its visits, prior, value in [−1, 1] for the mover, what may follow."""

    move: str
    share: float
    prior: float
    value: float
    line: list[str]


def views(game: Game, trees: Trees) -> list[View]:
    """Of the moves in the first of the searched positions, the most visited first; those nobody looked at are left."""
    visits, priors, values = trees.visits[0], trees.priors[0], trees.action_values[0]
    order = [int(action) for action in np.argsort(-visits, kind="stable") if visits[action] > 0]
    return [
        View(
            game.label(action),
            round(float(visits[action] / visits.sum()), 4),
            round(float(priors[action]), 4),
            round(float(values[action]), 4),
            [game.label(move) for move in trees.line(0, action)][:AHEAD],
        )
        for action in order
    ]


def opponent(run: Path, *, generation: int | None, simulations: int | None, seed: int) -> tuple[Game, SearchPlayer]:
    """The game of a run and a network of it as a player: of the generation that plays, unless one is named.

    Raises:
        RunError: if the folder holds no such network.
        GameError: if the game can't be made.
    """
    config = read_agent(run / "config.yaml")
    assert isinstance(config, AlphaZeroConfig)
    path = weights_path(run / STAGE, plays(run / STAGE) if generation is None else generation)
    if not path.is_file():
        saved = len(list((run / STAGE).glob("generation-*.safetensors")))
        raise RunError(f"{run} has no generation {generation}; there are 0 to {saved - 1}")
    game = make_game(config.environment, config.options)
    judge = NetworkJudge(game, load_network(game, config, path), precision=config.precision)
    rng = np.random.default_rng(seed)
    return game, SearchPlayer(game, judge, rule(config), simulations or config.evaluation_simulations, rng)


def play_game(game: Game, agent: SearchPlayer, *, begin: bool, ask: Ask, tell: Tell) -> int | None:
    """One game of a person against `agent`; returns 1, 0 or −1 for the person, None if it was left.

    Args:
        game: the rules.
        agent: the opponent, whose search also judges the person's moves.
        begin: the person moves first.
        ask: for a move.
        tell: of each event: {"board"}, {"refused"}, {"player", "move", "views"}, and at the end {"result"}.
    """
    state, persons = game.start(1), begin
    while True:
        tell({"board": game.show(state[0])})
        seen = views(game, agent.search(state))
        if persons:
            action = _ask(game, state[0], ask, tell)
            if action is None:
                return None
            who = "you"
        else:
            action, who = find_action(game, state[0], seen[0].move), "agent"
        tell({"player": who, "move": game.label(action), "views": [vars(view) for view in seen]})
        state, persons = game.play(state, np.array([action])), not persons
        over, values = game.outcome(state)
        if over[0]:
            result = int(values[0]) * (1 if persons else -1)
            tell({"board": game.show(state[0])})
            tell({"result": result})
            return result


def _ask(game: Game, state: Ints, ask: Ask, tell: Tell) -> int | None:
    """A legal move; None if no more come."""
    while (text := ask()) is not None:
        if not text.strip():
            continue
        try:
            return find_action(game, state, text)
        except GameError as problem:
            tell({"refused": str(problem)})
    return None


def as_json(write: Callable[[str], None]) -> Tell:
    """Events as lines of JSON."""
    return lambda event: write(json.dumps(event, ensure_ascii=False))


def for_people(console: Console) -> Tell:
    """Events as boards, tables and sentences."""

    def tell(event: dict[str, Any]) -> None:
        if "board" in event:
            console.print(f"\n{event['board']}", highlight=False, markup=False)
        elif "refused" in event:
            console.print(event["refused"], style="red", highlight=False, markup=False)
        elif "result" in event:
            console.print({1: "You win.", 0: "A draw.", -1: "It wins."}[event["result"]], style="bold")
        else:
            _say_move(console, event)

    return tell


def _say_move(console: Console, event: dict[str, Any]) -> None:
    shown = event["views"]
    if event["player"] == "you":
        mine = next((view for view in shown if view["move"] == event["move"]), None)
        opinion = "no visits" if mine is None else f"{mine['share']:.0%} of its visits, value {mine['value']:+.2f}"
        best = shown[0]
        console.print(
            f"you: [bold]{event['move']}[/bold] (the search: {opinion}; it would play {best['move']}, "
            f"value {best['value']:+.2f})",
            highlight=False,
        )
        return
    table = Table("move", "visits", "prior", "value", "what may follow", title=f"it plays {event['move']}")
    for view in shown[:SHOWN]:
        numbers = (f"{view['share']:.0%}", f"{view['prior']:.0%}", f"{view['value']:+.2f}")
        table.add_row(view["move"], *numbers, " ".join(view["line"]))
    console.print(table)
