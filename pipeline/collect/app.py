"""The addresses of the page, and what each of them does: read a request, ask the board through the writer, reply."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pipeline.collect.adjudication import Dispute, disputes
from pipeline.collect.annotators import Doors
from pipeline.collect.board import Board, Choice, Refused
from pipeline.collect.records import Answer, Pair, Side
from pipeline.collect.security import Guard
from pipeline.collect.store import ADJUDICATOR, View
from pipeline.collect.writer import Writer

Reason = Literal["correctness", "helpfulness", "clarity", "harmlessness", "style"]
REASONS: tuple[str, ...] = get_args(Reason)
COOKIE = "align_collect"
KEPT = 30 * 24 * 3600  # seconds that a browser remembers who it is

Handler = Callable[[Request], Awaitable[Response]]
Body = TypeVar("Body", bound=BaseModel)


class Tab(BaseModel):
    """Asked in a browser's tab."""

    model_config = ConfigDict(extra="forbid", strict=True)
    tab: str = Field(min_length=1, max_length=64)


class Given(Tab):
    """An answer."""

    view: str = Field(max_length=64)
    choice: Choice
    seconds: float = Field(ge=0, allow_inf_nan=False)
    strength: Literal[1, 2, 3] | None = None
    reasons: list[Reason] = Field(default_factory=list, max_length=len(REASONS))


class Settled(BaseModel):
    """The owner's decision on a pair; no choice opens it again."""

    model_config = ConfigDict(extra="forbid", strict=True)
    pair: str = Field(max_length=64)
    choice: Choice | None


@dataclass(frozen=True)
class Page:
    """What every page shows: sentences, and guidelines as HTML that is safe already."""

    messages: dict[str, str]
    guidelines: str | None = None


def build_app(board: Board, doors: Doors, page: Page, *, host: str = "127.0.0.1") -> Starlette:
    """The application that serves a board to those who have a token. `host` is where it will listen."""
    desk = _Desk(board, Writer(board), doors, page)
    routes = [
        Route("/", desk.nobody),
        Route("/join/{token}", desk.join),
        Route("/a/{name}/", desk.ask),
        Route("/a/{name}/next", desk.next, methods=["POST"]),
        Route("/a/{name}/answer", desk.answer, methods=["POST"]),
        Route("/a/{name}/undo", desk.undo, methods=["POST"]),
        Route("/settle/", desk.settle),
        Route("/settle/list", desk.list, methods=["POST"]),
        Route("/settle/decide", desk.decide, methods=["POST"]),
        Mount("/static", StaticFiles(packages=[("pipeline.collect", "page/static")])),
    ]
    refused = {Refused: _conflict, ValidationError: _bad_request}
    return Starlette(routes=routes, middleware=[Middleware(Guard, host=host)], exception_handlers=refused)


async def _conflict(request: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), 409)


async def _bad_request(request: Request, error: Exception) -> Response:
    return PlainTextResponse("not a request that the page sends", 400)


class _Desk:
    """The handlers, with what they share."""

    def __init__(self, board: Board, writer: Writer, doors: Doors, page: Page) -> None:
        self.board, self.writer, self.doors, self.page = board, writer, doors, page
        self.templates = Environment(
            loader=PackageLoader("pipeline.collect", "page"), autoescape=True, undefined=StrictUndefined
        )

    # ---- who ------------------------------------------------------------------------------------------------

    async def nobody(self, request: Request) -> Response:
        return PlainTextResponse(self.page.messages["not_open"], 403)

    async def join(self, request: Request) -> Response:
        """An address with a token: remember it in a cookie for this person's pages alone, and go there."""
        token = request.path_params["token"]
        who = self.doors.who(token)
        if who is None:
            return await self.nobody(request)
        home = home_of(who)
        response = RedirectResponse(home, 303)
        response.set_cookie(COOKIE, token, path=home, max_age=KEPT, httponly=True, samesite="lax")
        return response

    def _is(self, request: Request, name: str) -> bool:
        return self.doors.opens(request.cookies.get(COOKIE, ""), name)

    async def _read(self, request: Request, name: str, kind: type[Body]) -> Body | Response:
        """The body of a request by `name`, or the refusal."""
        if not self._is(request, name) or request.headers.get("x-csrf-token") != self.doors.csrf(name):
            return await self.nobody(request)
        return kind.model_validate_json(await request.body())

    def _html(self, template: str, name: str) -> Response:
        shown = {
            "text": self.page.messages,
            "guidelines": None if self.page.guidelines is None else Markup(self.page.guidelines),
            "reasons": REASONS,
            "csrf": self.doors.csrf(name),
        }
        return HTMLResponse(self.templates.get_template(template).render(shown))

    # ---- annotators -----------------------------------------------------------------------------------------

    async def ask(self, request: Request) -> Response:
        name = request.path_params["name"]
        return self._html("ask.html", name) if self._is(request, name) else await self.nobody(request)

    async def next(self, request: Request) -> Response:
        name = request.path_params["name"]
        body = await self._read(request, name, Tab)
        if isinstance(body, Response):
            return body
        return JSONResponse(await self.writer.do(lambda: self._turn(name, self.board.next(name, body.tab))))

    async def answer(self, request: Request) -> Response:
        name = request.path_params["name"]
        body = await self._read(request, name, Given)
        if isinstance(body, Response):
            return body

        def work() -> dict[str, Any]:
            spent, strength = body.seconds, body.strength
            self.board.answer(name, body.view, body.choice, seconds=spent, strength=strength, reasons=body.reasons)
            return self._turn(name, self.board.next(name, body.tab))

        return JSONResponse(await self.writer.do(work))

    async def undo(self, request: Request) -> Response:
        name = request.path_params["name"]
        body = await self._read(request, name, Tab)
        if isinstance(body, Response):
            return body

        def work() -> dict[str, Any]:
            again = self.board.undo(name, body.tab)
            return self._turn(name, again or self.board.next(name, body.tab)) | {"undone": again is not None}

        return JSONResponse(await self.writer.do(work))

    def _turn(self, name: str, view: View | None) -> dict[str, Any]:
        """What is asked now, by place and without sources, and how far the person is."""
        question = None
        if view is not None:
            question = {"view": view.id, **_texts(self.board.pair(view.pair), view.first)}
        return {"question": question, "progress": asdict(self.board.progress(name))}

    # ---- the owner ------------------------------------------------------------------------------------------

    async def settle(self, request: Request) -> Response:
        return self._html("settle.html", ADJUDICATOR) if self._is(request, ADJUDICATOR) else await self.nobody(request)

    async def list(self, request: Request) -> Response:
        body = await self._read(request, ADJUDICATOR, Tab)
        return body if isinstance(body, Response) else JSONResponse(await self.writer.do(self._disputes))

    async def decide(self, request: Request) -> Response:
        body = await self._read(request, ADJUDICATOR, Settled)
        if isinstance(body, Response):
            return body

        def work() -> dict[str, Any]:
            known = {dispute.pair.id: dispute for dispute in disputes(self.board.labels.values())}
            if body.pair not in known:
                raise Refused("annotators don't differ on this pair")
            self.board.settle(body.pair, body.choice, known[body.pair].first)
            return self._disputes()

        return JSONResponse(await self.writer.do(work))

    def _disputes(self) -> dict[str, Any]:
        return {"disputes": [_told(dispute) for dispute in disputes(self.board.labels.values())]}


def home_of(name: str) -> str:
    """The path of a person's page."""
    return "/settle/" if name == ADJUDICATOR else f"/a/{quote(name, safe='')}/"


def _texts(pair: Pair, first: Side) -> dict[str, Any]:
    answers: tuple[Answer, Answer] = (pair.a, pair.b) if first == "a" else (pair.b, pair.a)
    return {"prompt": list(pair.prompt), "answers": [answer.text for answer in answers]}


def _told(dispute: Dispute) -> dict[str, Any]:
    def choice(verdict: str) -> str:
        return ("first" if verdict == dispute.first else "second") if verdict in ("a", "b") else verdict

    verdicts = [
        {"annotator": label.annotator, "choice": choice(label.verdict), "reasons": label.reasons}
        for label in dispute.labels
    ]
    decision = dispute.decision and choice(dispute.decision.verdict)
    return {"pair": dispute.pair.id, **_texts(dispute.pair, dispute.first), "verdicts": verdicts, "decision": decision}
