"""The page in a real browser: a whole annotation, undoing, reloading, two at once, hostile texts, a killed server."""

import functools
import http.server
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.collect.store import ADJUDICATOR, Store, labels_path
from pipeline.evaluation.alpaca import Output, write_outputs
from tests.chromium import chromium

from .browsing import PATIENCE, Person, Server, shown
from .builders import finished_run

# Not `wait_for_function`: it evaluates strings in the page, which the page's policy forbids.
UNTIL_READ = """new Promise((done) => {
  const look = () => (localStorage.getItem("guidelines") === "read" ? done() : setTimeout(look, 20));
  look();
})"""
VERDICTS = {"1": "first", "2": "second", "t": "tie", "b": "both_bad", "s": "skip"}
Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    started = []

    def start(*arguments: str, prompts: int = 20) -> Server:
        started.append(Server(finished_run(tmp_path, prompts=prompts), *arguments))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Person]]:
    contexts = []

    def come(address: str, *, width: int = 1280, **options: Any) -> Person:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        return Person(contexts[-1].new_page()).open(address)

    yield come
    for context in contexts:
        context.close()


def test_twenty_pairs_by_keyboard_with_an_undo_and_a_reload(serve: Serve, visit: Callable[..., Person]) -> None:
    server = serve()
    anna = visit(server.addresses["annotator"])
    given: list[tuple[list[str], str]] = []
    for number, key in enumerate("12tbs" * 4):
        if number == 7:
            anna.press("u")
            assert anna.answers() == given[-1][0]  # the same pair, in the same order
            given.pop()
            given.append((anna.answers(), "2"))
            anna.press("2")
        if number == 11:
            before = anna.answers()
            anna.page.reload()
            anna.wait()
            assert anna.answers() == before
        given.append((anna.answers(), key))
        anna.press(key)
        assert f"{len(given)} answered" in anna.says("#progress")
    assert anna.finished()
    labels = server.labels()
    assert [shown(label) for label in labels] == [answers for answers, _ in given]
    for label, (_, key) in zip(labels, given, strict=True):
        sides = {"first": label.first, "second": "b" if label.first == "a" else "a"}
        assert label.verdict == sides.get(VERDICTS[key], VERDICTS[key])
        assert 0 < label.seconds < 60
    assert {label.first for label in labels} == {"a", "b"}
    assert anna.complaints == []
    assert {url.split("/")[2] for url in anna.requests} == {server.base.split("/")[2]}


def test_strength_and_reasons_go_with_the_verdict(serve: Serve, visit: Callable[..., Person]) -> None:
    server = serve(prompts=2)
    anna = visit(server.addresses["annotator"])
    for key in ("q", "e"):  # the last one holds
        anna.page.keyboard.press(key)
    anna.page.get_by_role("button", name="clarity").click()
    anna.page.get_by_role("button", name="style").click()
    anna.page.get_by_role("button", name="style").click()  # off again
    anna.press("2")
    anna.press("1")
    first, second = server.labels()
    assert (first.strength, first.reasons) == (3, ("clarity",))
    assert (second.strength, second.reasons) == (None, ())  # nothing stays pressed


def test_two_at_once_with_overlap(serve: Serve, visit: Callable[..., Person]) -> None:
    server = serve("--annotators", "anna,ben", "--overlap", "0.3", prompts=10)
    people = [visit(server.addresses[name]) for name in ("anna", "ben")]
    assert people[0].answers() != people[1].answers() or server.labels() == []
    while not all(person.finished() for person in people):
        for person, key in zip(people, "12", strict=True):
            if not person.finished():
                person.press(key)
        for person in people:
            if person.finished() and len(server.labels()) < 13:
                person.page.click("#again")
                person.wait()
    labels = server.labels()
    assert Counter(Counter(label.pair.id for label in labels).values()) == {1: 7, 2: 3}
    assert {label.annotator for label in labels} == {"anna", "ben"}


def test_two_tabs_show_different_pairs_even_when_one_is_a_copy(serve: Serve, visit: Callable[..., Person]) -> None:
    server = serve(prompts=4)
    anna = visit(server.addresses["annotator"])
    with anna.page.expect_popup() as popup:
        anna.page.evaluate("open(location.href)")  # takes a copy of what the tab remembers
    copy = Person(popup.value)
    copy.wait()
    assert copy.answers() != anna.answers()
    for person in (anna, copy, anna, copy):
        person.press("t")
    assert len({label.pair.id for label in server.labels()}) == len(server.labels()) == 4


HOSTILE = (
    "</script><script>window.hit = 1</script>",
    '<img src=x onerror="window.hit = 1"><svg onload="window.hit = 1">',
    "{{ 7 * 7 }} ${window.hit = 1} <b>bold</b> &lt;",
    "safe \u202egnp.exe\u202c \u2066inside",
    "w" * 20_000,
    "one\n\n\ttwo   three",
)


def test_hostile_text_is_text(tmp_path: Path, serve: Serve, visit: Callable[..., Person]) -> None:
    """As an answer, and as the question that it answers."""
    write_outputs(tmp_path / "one.json", [Output(text, text, "one") for text in HOSTILE])
    write_outputs(tmp_path / "other.json", [Output(text, "Harmless.", "other") for text in HOSTILE])
    server = serve("--outputs", str(tmp_path / "one.json"), "--against", str(tmp_path / "other.json"))
    anna = visit(server.addresses["annotator"], width=390)
    seen = []
    while not anna.finished():
        assert anna.page.evaluate("window.hit") is None
        assert anna.page.evaluate("document.documentElement.scrollWidth") == 390
        assert anna.page.evaluate("document.querySelectorAll('.said :not(.sign)').length") == 0
        read = anna.page.evaluate("[...document.querySelectorAll('.said')].map((place) => place.textContent)")
        assert "Harmless." in read[1:]
        seen.append(read[0])
        assert seen[-1] in read[1:]
        anna.press("1")
    told = [
        text.replace("\u202e", "U+202E").replace("\u202c", "U+202C").replace("\u2066", "U+2066") for text in HOSTILE
    ]
    assert sorted(seen) == sorted(told)
    assert {label.pair.a.text for label in server.labels()} == set(HOSTILE)  # kept as they were
    assert anna.complaints == []


def test_a_foreign_page_can_do_nothing(tmp_path: Path, serve: Serve, visit: Callable[..., Person]) -> None:
    server = serve(prompts=3)
    anna = visit(server.addresses["annotator"])
    anna.press("1")
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "index.html").write_text("<iframe id=frame></iframe>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "evil"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        page = anna.page.context.new_page()  # the same browser, with its cookies
        page.goto(f"http://127.0.0.1:{elsewhere.server_port}/")
        attack = """async (target) => {
          const body = JSON.stringify({ tab: "evil" });
          const seen = [];
          for (const path of ["next", "undo"]) {
            for (const mode of ["cors", "no-cors"]) {
              const options = { method: "POST", mode, credentials: "include", body };
              seen.push(await fetch(`${target}/a/annotator/${path}`, options).then((r) => r.type, () => "refused"));
            }
          }
          return seen;
        }"""
        assert page.evaluate(attack, server.base) == ["refused"] * 4
        page.evaluate("(target) => { frame.src = `${target}/a/annotator/` }", server.base)
        page.wait_for_timeout(500)
        framed = [frame.url for frame in page.frames if frame is not page.main_frame]
        assert framed == ["chrome-error://chromewebdata/"]
        form = f"<form method=post enctype=text/plain action={server.base}/a/annotator/undo><button>"
        page.set_content(form)  # another port of the same host is the same site, so the cookie goes along
        with page.expect_navigation() as navigation:
            page.click("button")
        assert navigation.value.status == 403
        assert "align_collect=" in navigation.value.request.all_headers()["cookie"]
        elsewhere.shutdown()
    assert len(server.labels()) == 1  # hers, not undone
    assert "evil" not in {view.tab for view in Store(labels_path(server.run)).views()}


def test_a_killed_server_loses_no_answer(serve: Serve, visit: Callable[..., Person]) -> None:
    server = serve(prompts=8)
    anna = visit(server.addresses["annotator"])
    for key in "12t":
        anna.press(key)
    asked = anna.answers()
    server.kill()
    assert len(server.labels()) == 3
    anna.page.keyboard.press("b")
    anna.page.wait_for_selector("#alarm:not([hidden])")
    assert "Trying again" in anna.says("#alarm")
    server.start(server.port)
    anna.wait()
    assert not anna.page.is_visible("#alarm")
    labels = server.labels()
    assert [label.verdict in ("a", "b") for label in labels] == [True, True, False, False]
    assert (labels[-1].verdict, shown(labels[-1])) == ("both_bad", asked)
    for key in "1212":
        anna.press(key)
    assert anna.finished()
    assert len(server.labels()) == 8


def test_by_touch_on_a_phone(serve: Serve, visit: Callable[..., Person]) -> None:
    server = serve(prompts=2)
    anna = visit(server.addresses["annotator"], width=390, has_touch=True, is_mobile=True)
    for button in anna.page.query_selector_all("button:visible, summary"):
        box = button.bounding_box()
        assert box["height"] >= 44, button.inner_text()
    assert not anna.page.is_visible("kbd")
    first, second = (one.bounding_box() for one in anna.page.query_selector_all(".answer"))
    assert second["y"] > first["y"]
    assert second["x"] == first["x"]
    anna.page.get_by_role("button", name="Both bad").tap()
    anna.wait()
    assert [label.verdict for label in server.labels()] == ["both_bad"]


def test_by_tab_key_and_with_names_for_readers(serve: Serve, visit: Callable[..., Person]) -> None:
    server = serve(prompts=2)
    anna = visit(server.addresses["annotator"])
    names = []
    while not names or names[-1] != "Undo U":
        anna.page.keyboard.press("Tab")
        names.append(anna.page.evaluate("document.activeElement.textContent.trim().replace(/\\s+/g, ' ')"))
        assert anna.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert [name.rsplit(" ", 1)[0] for name in names[-6:]] == [
        *("Answer 1 is better", "Tie", "Both bad", "Answer 2 is better", "Skip", "Undo")
    ]
    for role, name in (
        *(("region", "Conversation"), ("article", "Answer 1"), ("article", "Answer 2")),
        *(("group", "How clear"), ("group", "Your verdict, saved at once"), ("progressbar", "0 answered, 2 left")),
    ):
        assert anna.page.get_by_role(role, name=name, exact=True).count() == 1, name
    anna.page.get_by_role("button", name="Tie").focus()
    anna.press("Enter")
    assert [label.verdict for label in server.labels()] == ["tie"]
    assert anna.says("#said") == "Saved. 1 answered, 1 left."
    assert anna.page.evaluate("document.activeElement.id") == "title"  # reading goes on from the top
    first, second = (one.bounding_box() for one in anna.page.query_selector_all(".answer"))
    assert first["y"] == second["y"]  # side by side


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(251, 250, 248)"), ("dark", "rgb(21, 23, 26)")])
def test_another_language_guidelines_and_both_schemes(
    tmp_path: Path, serve: Serve, visit: Callable[..., Person], scheme: str, paper: str
) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text("Achten Sie auf **Fakten**. <script>window.hit = 1</script>")
    server = serve("--language", "de", "--guidelines", str(guide), prompts=2)
    anna = visit(server.addresses["annotator"], width=390, color_scheme=scheme)
    assert anna.page.evaluate("document.documentElement.lang") == "de"
    assert anna.says("h1") == "Welche Antwort ist besser?"
    assert anna.page.is_visible(".prose strong")
    assert anna.page.evaluate("window.hit") is None
    assert anna.page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    assert anna.page.evaluate("document.documentElement.scrollWidth") == 390
    anna.page.click("summary")
    anna.page.evaluate(UNTIL_READ)  # the event comes after the click
    anna.page.reload()
    anna.wait()
    assert not anna.page.is_visible(".prose")  # read once, it stays shut
    anna.press("t")
    assert anna.says("#said") == "Gespeichert. 1 beantwortet, 1 offen."


def test_the_owner_settles_what_they_differ_on(serve: Serve, visit: Callable[..., Person]) -> None:
    server = serve("--annotators", "anna,ben", "--overlap", "1", prompts=2)
    for name, keys in (("anna", "tt"), ("ben", "tb")):
        person = visit(server.addresses[name])
        for key in keys:
            person.press(key)
    owner = visit_settle(visit, server)
    assert owner.page.locator(".dispute").count() == len({"pair"})
    assert "anna: Tie" in owner.says(".verdicts")
    assert "ben: Both bad" in owner.says(".verdicts")
    read = owner.page.evaluate("[...document.querySelectorAll('.dispute .said')].map((place) => place.textContent)")
    owner.page.get_by_role("button", name="Answer 2 is better").click()
    owner.page.wait_for_selector(".settled")
    assert owner.says("#progress") == "0 open, 1 settled"
    (decision,) = [label for label in server.labels() if label.annotator == ADJUDICATOR]
    assert read[1:] == shown(decision)
    assert decision.verdict == ("b" if decision.first == "a" else "a")
    owner.page.reload()
    owner.page.wait_for_selector(".settled")
    owner.page.get_by_role("button", name="Open again").click()
    owner.page.wait_for_selector(".settled", state="detached")
    assert [label for label in server.labels() if label.annotator == ADJUDICATOR] == []
    assert owner.complaints == []


def visit_settle(visit: Callable[..., Person], server: Server) -> Person:
    class Owner(Person):
        def wait(self) -> None:
            self.page.wait_for_selector(".dispute", timeout=PATIENCE)

    return Owner(visit(server.addresses["anna"]).page.context.new_page()).open(server.addresses[ADJUDICATOR])


def test_planted_pairs_look_like_any_other(tmp_path: Path, serve: Serve, visit: Callable[..., Person]) -> None:
    checks = tmp_path / "checks.jsonl"
    rows = [{"prompt": f"Check {i}?", "chosen": f"Right {i}.", "rejected": f"Wrong {i}."} for i in range(3)]
    checks.write_text("\n".join(map(json.dumps, rows)))
    server = serve("--checks", str(checks), "--check-rate", "0.5", prompts=12)
    anna = visit(server.addresses["annotator"])
    while not anna.finished():
        right = [number for number, text in enumerate(anna.answers(), start=1) if text.startswith("Right")]
        anna.press(str(right[0]) if right else "t")
    labels = server.labels()
    planted = [label for label in labels if label.pair.expected]
    assert len(planted) == 3
    assert all(label.verdict == label.pair.expected for label in planted)
    assert len(labels) == 15
