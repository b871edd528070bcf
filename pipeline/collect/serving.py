"""From a run folder to a page that listens: what `align collect serve` does, and what `status` tells."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from pipeline.collect.annotators import Doors, owner_token
from pipeline.collect.asking import asking
from pipeline.collect.board import Board
from pipeline.collect.errors import CollectError
from pipeline.collect.messages import load_messages
from pipeline.collect.plan import Plan
from pipeline.collect.records import Label, Pair
from pipeline.collect.security import is_loopback
from pipeline.collect.store import ADJUDICATOR, Store, labels_path


@dataclass(frozen=True)
class Look:
    """How the page looks: its language, a file of messages of one's own, guidelines in Markdown."""

    language: str = "en"
    messages: Path | None = None
    guidelines: Path | None = None


class Sitting:
    """A server that is ready: it holds its port, and knows everybody's address.

    Args:
        run: the run folder; labels go to RUN/collect/labels.sqlite.
        pairs: what is asked, planted pairs among them.
        plan: who is asked, and how often.
        ask: name of the strategy that orders pairs.
        host, port: where to listen; port 0 = any that is free.
        token: the owner's; None = the one kept in RUN/collect/token.
        look: of the page.

    Raises:
        CollectError: the host is open to others and no token was given, the port is taken, a file can't be read, or
            the packages of the extra `collect` are missing.
    """

    def __init__(
        self,
        run: Path,
        pairs: Sequence[Pair],
        plan: Plan,
        *,
        ask: str = "random",
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        look: Look = Look(),
    ) -> None:
        if not is_loopback(host) and token is None:
            raise CollectError(f"--host {host} lets other machines in, so it needs a secret of yours: --token SECRET")
        _check_packages()
        from pipeline.collect.app import Page, build_app
        from pipeline.collect.guidelines import render

        strategy = asking(ask, plan.seed, run)
        guidelines = render(look.guidelines) if look.guidelines is not None else None
        page = Page(load_messages(look.language, look.messages), guidelines)
        self.doors = Doors(owner_token(labels_path(run).with_name("token"), token), plan.annotators)
        self._socket = _listen(host, port)
        self.host, self.port = host, self._socket.getsockname()[1]
        self.store = Store(labels_path(run))
        self.board = Board(self.store, pairs, strategy, plan)
        self.app = build_app(self.board, self.doors, page, host=host)

    def addresses(self) -> dict[str, str]:
        """What each annotator opens, and the adjudicator, by name."""
        shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        base = f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"
        return {name: f"{base}/join/{self.doors.token(name)}" for name in (*self.doors.names, ADJUDICATOR)}

    def serve(self) -> None:
        """Serve until Ctrl-C or SIGTERM."""
        import uvicorn

        config = uvicorn.Config(
            self.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            timeout_keep_alive=75,  # seconds; reading two answers takes a while
        )
        try:
            uvicorn.Server(config).run(sockets=[self._socket])
        except KeyboardInterrupt:  # uvicorn has ended cleanly, and hands the signal on
            pass
        finally:
            self._socket.close()


def _check_packages() -> None:
    for name in ("starlette", "uvicorn", "markdown_it"):
        if find_spec(name) is None:
            raise CollectError(f"{name} isn't installed: pip install 'align-pipeline[collect]'")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise CollectError(f"nothing can listen at {host}:{port} ({error.strerror}); try --port 0 for any") from None


@dataclass(frozen=True)
class Standing:
    """How far one annotator is: verdicts, skips and checks among them, median seconds, and when the last one came."""

    annotator: str
    verdicts: int
    skipped: int
    checks: int
    checks_right: int
    median_seconds: float
    latest: str


def standings(labels: Sequence[Label]) -> list[Standing]:
    """Of everybody who answered, by name. A planted pair counts as right where the expected side won."""
    by_name: dict[str, list[Label]] = {}
    for label in labels:
        by_name.setdefault(label.annotator, []).append(label)
    return [
        Standing(
            annotator=name,
            verdicts=len(given),
            skipped=sum(label.verdict == "skip" for label in given),
            checks=sum(label.pair.expected is not None for label in given),
            checks_right=sum(label.verdict == label.pair.expected for label in given),
            median_seconds=median(label.seconds for label in given),
            latest=max(label.at for label in given),
        )
        for name, given in sorted(by_name.items())
    ]
