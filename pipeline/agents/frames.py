"""A replay memory for stacked frames that keeps every frame once: an eighth of the memory of whole stacks."""

import numpy as np
import torch
from gymnasium import spaces

from pipeline.agents.environments import Array, Experience, Step
from pipeline.agents.errors import AgentError
from pipeline.agents.replay import chains


class FrameReplay:
    """About the last `capacity` steps of copies whose observations are the last `stack` frames, oldest first.

    Every copy has a ring of frames. A slot holds a frame and, unless an episode ended with it, what was done and came
    of it; the next slot's frame is its successor. Before an episode's first frame nothing was seen, so that frame is
    repeated, as gymnasium's FrameStackObservation does. An episode's last frame is kept too: truncated steps need it.
    Steps whose oldest frames are overwritten aren't drawn any more: a few of each copy.

    Args:
        capacity: frames kept, of all copies together; a byte a pixel.
        observation_space: Box [stack, …].
        copies: E.
        generator: of the draws.
        n_step: longest chain that is drawn.

    Raises:
        AgentError: if a copy's share of the capacity holds no step and its frames.
    """

    def __init__(
        self,
        capacity: int,
        observation_space: spaces.Space[object],
        copies: int,
        generator: torch.Generator,
        *,
        n_step: int = 1,
    ) -> None:
        assert isinstance(observation_space, spaces.Box)
        self._stack, *shape = observation_space.shape
        self._length = -(-capacity // copies)
        least = self._stack + 3  # the frames of a step, of the one being made, and an episode's last
        if self._length < least:
            raise AgentError(
                f"buffer: got {capacity}; {copies} copies of stacked frames need at least {copies * least}"
            )
        places = (copies, self._length)
        self._frames = np.zeros((*places, *shape), observation_space.dtype)
        self._actions = np.zeros(places, np.int64)
        self._rewards = np.zeros(places, np.float32)
        self._terminated = np.zeros(places, np.bool_)
        self._age = np.zeros(places, np.uint8)  # frames of the same episode before this one, at most stack − 1
        self._drawable = np.zeros(places, np.bool_)
        self._copies = np.arange(copies)
        self._next = np.zeros(copies, np.int64)  # where each copy's newest frame is, to which a step will be added
        self._begins = np.ones(copies, np.bool_)  # that frame isn't there yet: its episode begins
        self._filled, self._generator, self._n_step = 0, generator, n_step

    def __len__(self) -> int:
        return int(self._drawable.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept for a full memory."""
        kept = (self._frames, self._actions, self._rewards, self._terminated, self._age, self._drawable)
        return sum(part.nbytes for part in kept)

    def add(self, step: Step) -> None:
        """Keep one step of every copy; the oldest leave. A truncated step is kept as one that goes on."""
        rows, here = self._copies, self._next
        begins = self._begins.nonzero()[0]
        self._frames[begins, here[begins]] = step.observations[begins, -1]
        self._age[begins, here[begins]] = 0
        self._actions[rows, here] = step.actions
        self._rewards[rows, here] = step.rewards
        self._terminated[rows, here] = step.terminated
        self._drawable[rows, here] = True
        after = (here + 1) % self._length
        self._frames[rows, after] = step.successors[:, -1]
        self._age[rows, after] = np.minimum(self._age[rows, here] + 1, self._stack - 1)
        self._begins = step.terminated | step.truncated
        self._next = (after + self._begins) % self._length
        for ahead in range(self._stack):  # no step yet, or a past that the next frame will be written into
            self._drawable[rows, (self._next + ahead) % self._length] = False
        self._filled = min(self._length, max(self._filled, int(self._next.max()) + 1, int(after.max()) + 1))

    def sample(self, count: int) -> Experience:
        """`count` steps drawn with replacement, each as likely.

        Raises:
            ValueError: while the memory is empty.
        """
        if not self._filled:
            raise ValueError("sample: the memory is empty; add steps first")
        slots = np.empty(0, np.int64)
        while len(slots) < count:
            drawn = torch.randint(len(self._copies) * self._filled, (count,), generator=self._generator).numpy()
            drawn = drawn // self._filled * self._length + drawn % self._filled
            slots = np.concatenate([slots, drawn[self._drawable.reshape(-1)[drawn]]])
        return self.steps(*np.divmod(slots[:count], self._length))

    def steps(self, copies: Array, slots: Array) -> Experience:
        """The steps [N] of these copies at these slots, or the chains that begin with them."""
        path, real = chains(slots, self._n_step, lambda at: self._goes_on(copies, at), self._onward)
        rewards = (self._rewards[copies, path] * real).T
        parts = (
            self._stacked(copies, slots),
            self._actions[copies, slots],
            rewards if self._n_step > 1 else rewards[:, 0],
            self._stacked(copies, self._onward(path[-1])),
            self._terminated[copies, path[-1]],
            *([real.sum(axis=0)] if self._n_step > 1 else []),
        )
        return Experience(*(torch.from_numpy(part) for part in parts))

    def _onward(self, slots: Array) -> Array:
        after: Array = (slots + 1) % self._length
        return after

    def _goes_on(self, copies: Array, slots: Array) -> Array:
        """Whether the episode goes on and its next step is kept whole."""
        on: Array = self._drawable[copies, self._onward(slots)] & ~self._terminated[copies, slots]
        return on

    def drawable(self) -> tuple[Array, Array]:
        """Copies and slots of all steps that `sample` chooses from."""
        copies, slots = self._drawable.nonzero()
        return copies, slots

    def _stacked(self, copies: Array, slots: Array) -> Array:
        """[N, stack, …]: the frames up to these."""
        back = np.minimum(np.arange(self._stack - 1, -1, -1), self._age[copies, slots][:, None])
        stacks: Array = self._frames[copies[:, None], (slots[:, None] - back) % self._length]
        return stacks
