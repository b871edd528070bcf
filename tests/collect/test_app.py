"""The page's addresses: who is let in, what is refused, what is told and what isn't."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from pipeline.collect.annotators import Doors
from pipeline.collect.app import COOKIE, REASONS, Page, build_app, home_of
from pipeline.collect.asking import at_random
from pipeline.collect.board import Board
from pipeline.collect.messages import load_messages
from pipeline.collect.plan import Plan
from pipeline.collect.security import HEADERS, LARGEST, known_host
from pipeline.collect.store import ADJUDICATOR, Store, labels_path

from .builders import pairs

BASE = "http://127.0.0.1:8484"
NAMES = ("anna", "ben", "Zoë M.")


class Browser:
    """One person's: it has followed their address."""

    def __init__(self, doors: Doors, app: Any, name: str, tab: str = "tab") -> None:
        self.home, self.tab = home_of(name), tab
        self.client = TestClient(app, base_url=BASE)
        self.page = self.client.get(f"/join/{doors.token(name)}")
        found = re.search(r'name="csrf" content="(\w+)"', self.page.text)
        assert found
        self.headers = {"Origin": BASE, "X-CSRF-Token": found[1]}

    def post(self, path: str, headers: dict[str, str] | None = None, **body: Any) -> Any:
        return self.client.post(self.home + path, json=body, headers=self.headers | (headers or {}))

    def next(self) -> Any:
        return self.post("next", tab=self.tab).json()

    def answer(self, turn: Any, choice: str = "first", **more: Any) -> Any:
        body = {"view": turn["question"]["view"], "choice": choice, "seconds": 1.5, "tab": self.tab}
        return self.post("answer", **body, **more)


@pytest.fixture
def doors() -> Doors:
    return Doors("owner-token-for-tests", NAMES)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(Store(labels_path(tmp_path)), pairs(12), at_random(0), Plan(NAMES, overlap=0.5))


@pytest.fixture
def app(board: Board, doors: Doors) -> Any:
    return build_app(board, doors, Page(load_messages(), "<p>Be <strong>fair</strong>.</p>"))


@pytest.fixture
def anna(doors: Doors, app: Any) -> Browser:
    return Browser(doors, app, "anna")


def test_an_answer_is_kept_as_it_was_given(anna: Browser, board: Board) -> None:
    turn = anna.next()
    assert turn["progress"] == {"done": 0, "left": 12, "pace": None}
    then = anna.answer(turn, "second", strength=3, reasons=["clarity", "style"]).json()
    assert then["progress"]["done"] == 1
    assert then["question"]["view"] != turn["question"]["view"]
    (label,) = board.store.labels()
    shown = {"a": label.pair.a.text, "b": label.pair.b.text}
    assert turn["question"]["answers"][1] == shown[label.verdict]
    assert turn["question"]["answers"][0] == shown[label.first]
    assert (label.annotator, label.strength, label.reasons) == ("anna", 3, ("clarity", "style"))


def test_sources_are_never_told(anna: Browser) -> None:
    told = json.dumps(anna.next()).casefold()
    assert "source" not in told
    assert "policy says" in told  # the answer's own words
    assert set(anna.next()["question"]) == {"view", "prompt", "answers"}


def test_a_tie_has_no_strength(anna: Browser, board: Board) -> None:
    anna.answer(anna.next(), "tie", strength=2)
    assert board.store.labels()[0].strength is None


def test_undo_shows_the_last_one_again(anna: Browser) -> None:
    turn = anna.next()
    anna.answer(turn)
    again = anna.post("undo", tab="tab").json()
    assert again["undone"] is True
    assert again["question"]["answers"] == turn["question"]["answers"]
    assert anna.post("undo", tab="tab").json()["undone"] is False


def test_two_annotators_share_the_overlap_alone(anna: Browser, doors: Doors, app: Any, board: Board) -> None:
    people = [anna, Browser(doors, app, "ben"), Browser(doors, app, "Zoë M.", tab="other")]
    turns = [person.next() for person in people]
    while any(turn["question"] for turn in turns):
        turns = [
            person.answer(turn).json() if turn["question"] else turn for person, turn in zip(people, turns, strict=True)
        ]
    labels = board.store.labels()
    assert len(labels) == 6 * 1 + 6 * 3
    assert {label.annotator for label in labels} == set(NAMES)


# ---- who is let in ------------------------------------------------------------------------------------------


def test_nobody_comes_in_without_a_token(app: Any, doors: Doors) -> None:
    client = TestClient(app, base_url=BASE)
    for path in ("/", "/join/guess", f"/join/{doors.token('anna')[:-1]}", "/a/anna/", "/settle/"):
        response = client.get(path)
        assert (response.status_code, "csrf" in response.text) == (403, False), path
    for path in ("/a/anna/next", "/a/anna/answer", "/a/anna/undo", "/settle/list", "/settle/decide"):
        assert client.post(path, json={"tab": "x"}, headers={"Origin": BASE}).status_code == 403, path


def test_a_cookie_opens_ones_own_pages_alone(anna: Browser, app: Any, doors: Doors) -> None:
    cookie = anna.page.history[0].headers["set-cookie"]
    assert all(part in cookie for part in (COOKIE, "HttpOnly", "Path=/a/anna/", "SameSite=lax"))
    mine = {"Cookie": f"{COOKIE}={doors.token('anna')}"}
    client = TestClient(app, base_url=BASE)
    assert client.get("/a/anna/", headers=mine).status_code == 200
    for path in ("/a/ben/", "/a/Zo%C3%AB%20M./", "/settle/", f"/a/{ADJUDICATOR}/"):
        assert client.get(path, headers=mine).status_code == 403
    body = {"json": {"tab": "x"}, "headers": anna.headers | mine}
    assert client.post("/a/ben/next", **body).status_code == 403
    assert client.post("/settle/list", **body).status_code == 403


def test_a_name_needs_no_plain_letters(doors: Doors, app: Any) -> None:
    assert Browser(doors, app, "Zoë M.").next()["question"] is not None


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "0" * 32},
    ],
)
def test_foreign_pages_are_refused(anna: Browser, board: Board, headers: dict[str, str]) -> None:
    turn = anna.next()
    body = {"view": turn["question"]["view"], "choice": "first", "seconds": 1.0, "tab": "tab"}
    assert anna.post("answer", headers, **body).status_code == 403
    assert board.store.labels() == []
    assert anna.post("answer", **body).status_code == 200


@pytest.mark.parametrize("host", ["example.org", "example.org:8484", "127.0.0.1.example.org", "192.168.0.7:8484", ""])
def test_foreign_hosts_are_refused(app: Any, doors: Doors, host: str) -> None:
    client = TestClient(app, base_url=BASE)
    path = f"/join/{doors.token('anna')}"
    assert client.get(path, headers={"Host": host}, follow_redirects=False).status_code == 421
    for own in ("127.0.0.1:8484", "localhost:1", "[::1]:8484"):  # any port: a tunnel may end at another
        assert client.get(path, headers={"Host": own}, follow_redirects=False).status_code == 303


def test_a_server_for_others_knows_its_name_and_plain_addresses() -> None:
    assert known_host("192.168.0.7:8484", "0.0.0.0")
    assert known_host("box.lan:8484", "box.lan")
    assert not known_host("rebound.example.org", "0.0.0.0")
    assert not known_host("192.168.0.7", "127.0.0.1")
    assert not known_host("[", "0.0.0.0")


def test_every_response_carries_the_headers(anna: Browser) -> None:
    pages = [anna.page, anna.client.get("/"), anna.client.get("/static/ask.js"), anna.client.get("/static/none.js")]
    pages += [anna.post("next", tab="t"), anna.post("next", {"Origin": "https://example.org"}, tab="t")]
    for page in pages:
        assert all(page.headers[name] == value for name, value in HEADERS.items()), page.url
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe|http|\*|data:", policy)
    assert [page.status_code for page in pages] == [200, 403, 200, 404, 200, 403]


def test_the_page_has_no_script_or_style_of_its_own(anna: Browser) -> None:
    """Which the policy would refuse: but for data, all is in files."""
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", anna.page.text, re.S)
    assert [("application/json" in kind or not inside) for kind, inside in scripts] == [True, True]
    assert not re.search(r"<style|\sstyle=|\son\w+=|https?://", anna.page.text)


@pytest.mark.parametrize(
    "wrong",
    [
        {"choice": "a"},
        {"choice": None},
        {"strength": 4},
        {"strength": "1"},
        {"reasons": ["because"]},
        {"reasons": ["style"] * 6},
        {"seconds": -1},
        {"seconds": "x"},
        {"tab": ""},
        {"tab": "x" * 65},
        {"more": 1},
    ],
)
def test_what_the_page_would_not_send_is_refused(anna: Browser, board: Board, wrong: dict[str, Any]) -> None:
    body = {"view": anna.next()["question"]["view"], "choice": "first", "seconds": 1.0, "tab": "tab"}
    assert anna.post("answer", **(body | wrong)).status_code == 400
    assert board.store.labels() == []


def test_large_and_broken_requests_are_refused(anna: Browser) -> None:
    assert anna.post("next", tab="x" * LARGEST).status_code == 413
    broken = anna.client.post(f"{anna.home}next", content=b"{", headers=anna.headers)
    assert broken.status_code == 400
    parts = anna.client.post(f"{anna.home}next", content=iter([b"{}"]), headers=anna.headers)
    assert parts.status_code == 413  # of unknown length


def test_files_outside_of_the_page_are_not_served(anna: Browser) -> None:
    for path in (
        "/static/../ask.html",
        "/static/%2e%2e/ask.html",
        "/static/..%2fapp.py",
        "/static/",
        "/static//etc/passwd",
    ):
        assert anna.client.get(path).status_code in (403, 404), path


def test_an_unknown_view_is_a_conflict(anna: Browser) -> None:
    assert anna.answer({"question": {"view": "gone"}}).status_code == 409


# ---- disagreements ------------------------------------------------------------------------------------------


@pytest.fixture
def owner(anna: Browser, doors: Doors, app: Any) -> Browser:
    """After anna and ben answered everything that both are asked, and never the same."""
    for person, choice in ((anna, "tie"), (Browser(doors, app, "ben"), "both_bad")):
        turn = person.next()
        while turn["question"]:
            turn = person.answer(turn, choice).json()
    return Browser(doors, app, ADJUDICATOR)


def test_the_owner_sees_both_verdicts_and_has_the_last_word(owner: Browser, board: Board) -> None:
    found = owner.post("list", tab="t").json()["disputes"]
    assert {dispute["pair"] for dispute in found} == board.shared
    told = [{verdict["annotator"]: verdict["choice"] for verdict in dispute["verdicts"]} for dispute in found]
    assert told == [{"anna": "tie", "ben": "both_bad"}] * 6
    one = found[0]
    after = owner.post("decide", pair=one["pair"], choice="second").json()["disputes"]
    assert [dispute["decision"] for dispute in after] == ["second"] + [None] * 5
    (label,) = board.store.labels(ADJUDICATOR)
    assert one["answers"][1] == {"a": label.pair.a.text, "b": label.pair.b.text}[label.verdict]
    assert one["answers"][0] == {"a": label.pair.a.text, "b": label.pair.b.text}[label.first]
    owner.post("decide", pair=one["pair"], choice="tie")
    assert [label.verdict for label in board.store.labels(ADJUDICATOR)] == ["tie"]
    opened = owner.post("decide", pair=one["pair"], choice=None).json()["disputes"]
    assert [dispute["decision"] for dispute in opened] == [None] * 6
    assert board.store.labels(ADJUDICATOR) == []


def test_only_disagreements_are_settled(owner: Browser, board: Board) -> None:
    alone = next(id for id in board.pairs if id not in board.shared)
    assert owner.post("decide", pair=alone, choice="first").status_code == 409
    assert owner.post("decide", pair="unknown", choice="first").status_code == 409


def test_reasons_have_messages() -> None:
    assert {f"reason.{reason}" for reason in REASONS} <= set(load_messages())
