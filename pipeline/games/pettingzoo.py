"""Any board game of PettingZoo: `pettingzoo:connect_four_v3`. Slow, since its environments hold one position each."""

import importlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.games.game import Bools, Floats, GameError, Ints, Symmetry

HIDDEN = ("holdem", "hanabi", "rps", "gin_rummy")  # a search would look into the other's cards
REMEMBERED = 1 << 16
NONE = -1  # in a row of moves, where none was made yet


@dataclass(frozen=True)
class Facts:
    """What an environment says of a position."""

    legal: Bools  # [A]
    planes: Floats  # [C,H,W]
    over: bool
    value: float  # for the player to move


class PettingZooGame:
    """A turn-based environment of two agents that see everything, with observations {observation [H,W,C], action_mask}.

    A position is the row of moves that led there: environments can't be copied, but played again.

    Args:
        name: a module of pettingzoo.classic, such as connect_four_v3, or the dotted path of another one.
        plies: a game that goes on for longer is a draw.
        options: keyword arguments of the environment.

    Raises:
        GameError: if it can't be made, or isn't such a game.
    """

    def __init__(self, name: str, *, plies: int = 128, **options: Any) -> None:
        self.name, self._plies = f"pettingzoo:{name}", plies
        self._env = _make(name, options)
        self._moves: list[int] = []  # that the environment stands at
        self._known: OrderedDict[tuple[int, ...], Facts] = OrderedDict()
        self._env.reset(seed=0)
        agents = list(self._env.possible_agents)
        if len(agents) != 2:
            raise GameError(f"{self.name} has {len(agents)} players; self-play needs two")
        self._first = agents.index(self._env.agent_selection)
        self._check_observation()
        self.actions = int(self._env.action_space(agents[0]).n)
        self.shape: tuple[int, int, int] = self._read().planes.shape
        _, height, width = self.shape
        self.symmetries: tuple[Symmetry, ...] = (Symmetry(np.arange(height * width), np.arange(self.actions)),)

    def start(self, count: int) -> Ints:
        return np.full((count, self._plies), NONE, np.int64)

    def legal(self, states: Ints) -> Bools:
        return np.stack([facts.legal for facts in self._facts(states)])

    def play(self, states: Ints, actions: Ints) -> Ints:
        after = states.copy()
        after[np.arange(len(states)), (states != NONE).sum(axis=1)] = actions
        return after

    def outcome(self, states: Ints) -> tuple[Bools, Floats]:
        facts = self._facts(states)
        long = (states != NONE).all(axis=1)
        over = np.array([one.over for one in facts], np.bool_)
        return over | long, np.array([one.value for one in facts], np.float32)

    def planes(self, states: Ints) -> Floats:
        return np.stack([facts.planes for facts in self._facts(states)])

    def label(self, action: int) -> str:
        return str(action)

    def show(self, state: Ints) -> str:
        """The moves, and the first two planes: X the player to move, O the other."""
        moves = state[state != NONE].tolist()
        mine, theirs = self._facts(state[None])[0].planes[:2]
        marks = np.where(mine > 0, "X", np.where(theirs > 0, "O", "·"))
        return "\n".join([*(" ".join(row) for row in marks), f"moves: {' '.join(map(str, moves))}"])

    def _facts(self, states: Ints) -> list[Facts]:
        found = []
        for state in states:
            moves = tuple(state[state != NONE].tolist())
            if moves not in self._known:
                self._known[moves] = self._find(list(moves))
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            found.append(self._known[moves])
        return found

    def _find(self, moves: list[int]) -> Facts:
        if self._moves != moves[: len(self._moves)]:
            self._env.reset(seed=0)
            self._moves = []
        for move in moves[len(self._moves) :]:
            self._env.step(move)
            self._moves.append(move)
        return self._read()

    def _read(self) -> Facts:
        env = self._env
        mover = env.possible_agents[(self._first + len(self._moves)) % 2]
        over = any(env.terminations.values()) or any(env.truncations.values())
        if not over and env.agent_selection != mover:
            raise GameError(f"{self.name}: {env.agent_selection} moves twice in a row; self-play needs turns")
        seen = env.observe(mover)
        value = float(np.sign(env.rewards[mover])) if over else 0.0
        planes = np.moveaxis(np.asarray(seen["observation"]), -1, 0).astype(np.float32)
        return Facts(np.asarray(seen["action_mask"], np.bool_), planes, over, value)

    def _check_observation(self) -> None:
        seen = self._env.observe(self._env.agent_selection)
        board = isinstance(seen, dict) and {"observation", "action_mask"} <= set(seen)
        if not board or np.ndim(seen["observation"]) != 3:
            raise GameError(f"{self.name} is no board game: it shows no planes [H,W,C] and no mask of legal moves")


def _make(name: str, options: dict[str, Any]) -> Any:
    if any(word in name for word in HIDDEN):
        raise GameError(f"pettingzoo:{name}: players don't see everything there, and self-play's search needs it")
    try:
        importlib.import_module("pettingzoo")
    except ImportError:
        raise GameError(f"pettingzoo:{name} needs PettingZoo; pip install 'align-pipeline[landmarks]'") from None
    try:
        return importlib.import_module(name if "." in name else f"pettingzoo.classic.{name}").raw_env(**options)
    except (ImportError, AttributeError, TypeError, ValueError) as problem:
        raise GameError(f"pettingzoo:{name} can't be made: {str(problem).splitlines()[0]}") from None
