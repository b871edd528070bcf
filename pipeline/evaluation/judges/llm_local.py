"""A language model on this machine as judge: how likely "A" and "B" are as the next token of the question."""

from collections.abc import Sequence

import torch

from pipeline import processes
from pipeline.evaluation.judges.asking import ONE_LETTER, question
from pipeline.evaluation.judges.progress import Progress, quiet
from pipeline.evaluation.judges.protocol import Answer, JudgeError, Verdict, outcome
from pipeline.lm.backbone import Backbone

Pair = tuple[Answer, Answer]


class LocalLlmJudge:
    """m = log π("A") − log π("B") for each order; verdict by the mean margin of both, ½(m₁ − m₂).

    A liking for the letter or for the place adds the same to m₁ and m₂ and so falls out. What is between −tie and tie
    is a tie, of the mean and of each order. Log-probs are over the whole vocabulary at temperature 1.

    Args:
        name: as it is called in messages.
        backbone: the model; it answers under no adapter.
        instructions: what makes an answer better.
        tie: nats.
    """

    def __init__(
        self,
        name: str,
        backbone: Backbone,
        *,
        instructions: str,
        tie: float = 0.0,
        batch_size: int = 8,
        progress: Progress = quiet,
    ) -> None:
        self.name, self._backbone, self._instructions = name, backbone, instructions
        self._tie, self._batch_size, self._progress = tie, batch_size, progress

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Verdicts. Raises JudgeError where a question is longer than the model can read, or the tokenizer can't tell
        the letters apart."""
        orders = [shown for first, second in pairs for shown in ((first, second), (second, first))]
        asked = [tuple(self.ids(*shown)) for shown in orders]
        margins = self.margins(list(dict.fromkeys(asked)))  # asked once: of equal answers both orders are the same
        return [self._verdict(margins[one], margins[other]) for one, other in zip(asked[::2], asked[1::2], strict=True)]

    def ids(self, first: Answer, second: Answer) -> list[int]:
        """The question as tokens, up to the header of the model's turn."""
        text = question(first, second, self._instructions, ONE_LETTER)
        ids = self._backbone.chat.prompt_ids([{"role": "user", "content": text}])
        limit = getattr(self._backbone.config, "max_position_embeddings", None)
        if limit is not None and len(ids) >= limit:
            raise JudgeError(
                f"judge {self.name}: a question has {len(ids)} tokens, the model reads {limit}; take another model or "
                "shorter instructions"
            )
        return ids

    def letters(self) -> list[int]:
        """The tokens with which answers "A" and "B" begin."""
        message = [{"role": "user", "content": ONE_LETTER}]
        first = [self._backbone.chat.completion_ids(message, letter)[0] for letter in "AB"]
        if first[0] == first[1]:
            raise JudgeError(f"judge {self.name}: its tokenizer begins A and B with the same token; take another model")
        return first

    @torch.no_grad()
    def margins(self, asked: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], float]:
        """log π("A") − log π("B") after each question. Nats."""
        a, b = self.letters()
        device = self._backbone.device
        ordered = sorted(asked) if self._backbone.packs else sorted(asked, key=len)  # alike ones share a batch
        found = torch.zeros(len(ordered), dtype=torch.float64, device=device)
        with self._progress(f"judge {self.name}", len(ordered)) as bar:
            for rows, counts in processes.batches(range(len(ordered)), self._batch_size):
                batch = [ordered[row] for row in rows]
                last = torch.tensor([len(ids) - 1 for ids in batch], device=device)
                states = self._backbone.states(None, batch).at(torch.arange(len(batch), device=device), last)
                table = torch.log_softmax(self._backbone.logits(states), -1)
                if counts:
                    found[list(rows)] = (table[:, a] - table[:, b]).double()
                    bar.advance(len(batch) * processes.world())
        processes.add(found)
        return dict(zip(ordered, found.tolist(), strict=True))

    def _verdict(self, one: float, other: float) -> Verdict:
        mean, *each = (self._decide(margin) for margin in ((one - other) / 2, one, -other))
        return Verdict(mean, (each[0], each[1]))

    def _decide(self, margin: float) -> float:
        return 0.5 if abs(margin) <= self._tie else outcome(margin, 0.0)
