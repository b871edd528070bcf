"""Many answers, one flush: what arrives while the disk is busy is written together, and told when it is safe."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

from pipeline.collect.board import Board
from pipeline.collect.errors import CollectError

T = TypeVar("T")


class Writer:
    """Lets work on a board happen one piece at a time, in one transaction with whatever else waits (group commit:
    DeWitt et al. 1984, Implementation Techniques for Main Memory Database Systems). A flush takes milliseconds, so
    without it a disk allows some hundred answers a second."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """The result of `work`, once what it wrote is on disk.

        Raises:
            CollectError: what `work` raised; it must have written nothing by then.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                outcomes = await self._write([work for work, _ in batch])
            except Exception as error:
                self.board.reload()  # memory may be ahead of the disk
                outcomes = [error] * len(batch)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():  # nobody waits any more
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    async def _write(self, batch: list[Callable[[], Any]]) -> list[Any]:
        store = self.board.store
        store.begin()
        try:
            # Here rather than in a thread: each statement lets go of the interpreter's lock, and would wait for it.
            outcomes = [_attempt(work) for work in batch]
        except Exception:
            store.rollback()
            raise
        await run_in_threadpool(store.commit)  # the disk is waited for elsewhere, while more arrives
        return outcomes


def _attempt(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except CollectError as error:
        return error
