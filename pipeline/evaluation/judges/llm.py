"""A language model behind an endpoint as judge."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from pipeline.evaluation.judges.asking import THINK_THEN_DECIDE, question, read_verdict, turned
from pipeline.evaluation.judges.endpoint import Endpoint, Reply
from pipeline.evaluation.judges.progress import Progress, quiet
from pipeline.evaluation.judges.protocol import Answer, JudgeError, Verdict, both_orders
from pipeline.evaluation.judges.replies import Replies, reply_key

Pair = tuple[Answer, Answer]


class LlmJudge:
    """Asks about every pair in both orders; what was asked before, in whatever process, isn't asked again.

    Args:
        name: as it is called in messages.
        endpoint: whom to ask.
        replies: where replies are kept.
        instructions: what makes an answer better.
        prices: of a million tokens of question and of reply; None = unknown.
        concurrency: requests under way at once.
        progress: makes a bar of a title and a total.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        replies: Replies,
        *,
        instructions: str,
        prices: tuple[float, float] | None = None,
        concurrency: int = 4,
        progress: Progress = quiet,
    ) -> None:
        self.name = name
        self._endpoint, self._replies, self._instructions = endpoint, replies, instructions
        self._prices, self._concurrency, self._progress = prices, concurrency, progress

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Verdicts; a reply that several pairs share is charged to the first.

        Raises:
            JudgeError: the endpoint can't be asked. Replies that came are kept, so that the next try goes on there.
        """
        texts = [self._question(*shown) for first, second in pairs for shown in ((first, second), (second, first))]
        keys = [self._key(text) for text in texts]
        self._ask(dict(zip(keys, texts, strict=True)))
        found, charged = [read_verdict(self._replies[key].text) for key in keys], self._charges(keys)
        return [
            both_orders(found[at], turned(found[at + 1]), None if self._prices is None else sum(charged[at : at + 2]))
            for at in range(0, len(keys), 2)
        ]

    def _question(self, first: Answer, second: Answer) -> str:
        return question(first, second, self._instructions, THINK_THEN_DECIDE)

    def _key(self, text: str) -> str:
        return reply_key(self._endpoint.base_url, self._endpoint.model, text, self._endpoint.options)

    def _ask(self, questions: dict[str, str]) -> None:
        """Get the replies that aren't there yet, and keep each as it comes."""

        def fetch(key: str) -> Reply:
            reply = self._endpoint.ask(questions[key])
            self._replies.add(key, reply)
            return reply

        missing = [key for key in questions if key not in self._replies]
        if not missing:
            return
        with (
            self._progress(f"judge {self.name}", len(missing)) as bar,
            ThreadPoolExecutor(max_workers=self._concurrency) as threads,
        ):
            cost = 0.0
            try:
                for done in as_completed([threads.submit(fetch, key) for key in missing]):
                    cost += self._price(done.result())
                    bar.advance(1, {} if self._prices is None else {"cost": cost})
            except JudgeError as error:
                raise JudgeError(
                    f"judge {self.name}: {error}. Replies so far are kept in {self._replies.path}; run the same "
                    "command to go on"
                ) from None
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _price(self, reply: Reply) -> float:
        into, out = self._prices or (0.0, 0.0)
        return (into * reply.input_tokens + out * reply.output_tokens) / 1e6

    def _charges(self, keys: Iterable[str]) -> list[float]:
        seen: set[str] = set()
        charges = []
        for key in keys:
            charges.append(0.0 if key in seen else self._price(self._replies[key]))
            seen.add(key)
        return charges
