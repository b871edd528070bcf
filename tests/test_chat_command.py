"""`align chat`: who answers, what is remembered, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.chat import Session, _loop, converse
from pipeline.config import Config, ConfigError, dump_config, parse_config
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import generate
from pipeline.rundir import RunDir, RunError
from tests.lm.builders import noisy, tiny


class Terminal:
    """A console that types a script and keeps what is printed."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.printed, self.asked = list(lines), [], []  # type: ignore[var-annotated]

    def input(self, prompt: str) -> str:
        self.asked.append(prompt)
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)

    def print(self, text: str, **_: Any) -> None:
        self.printed.append(text)


class Echo:
    """A session whose answers tell who gave them and how much they had read."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []

    def answer(self, name: str) -> str:
        return f"{name} after {len(self.messages)}"


def talk(*lines: str, available: tuple[str, ...] = ("base", "sft", "policy")) -> tuple[Terminal, Echo]:
    terminal, session = Terminal(*lines), Echo()
    _loop(session, available[-1], list(available), terminal)  # type: ignore[arg-type]
    return terminal, session


def answers(terminal: Terminal) -> list[str]:
    return [text for text in terminal.printed if " after " in text]


# ---- the loop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [["/quit", "more"], ["/exit", "more"], []])
def test_it_ends_on_quit_and_at_the_end_of_input(end: list[str]) -> None:
    terminal, _ = talk("hello", *end)
    assert answers(terminal) == ["policy after 1"]


def test_the_conversation_is_remembered_and_forgotten() -> None:
    terminal, session = talk("one", "two", "/new", "three")
    assert answers(terminal) == ["policy after 1", "policy after 3", "policy after 1"]
    assert [m["role"] for m in session.messages] == ["user", "assistant"]
    assert session.messages[0]["content"] == "three"


def test_commands_switch_who_answers() -> None:
    terminal, _ = talk("/base", "a", "/sft", "b", "/policy", "c")
    assert [text.split()[0] for text in answers(terminal)] == ["base", "sft", "policy"]
    assert "base" in terminal.asked[1]


def test_all_asks_everyone_about_the_same_conversation() -> None:
    terminal, session = talk("/all", "a", "b")
    assert answers(terminal) == [f"{who} after {n}" for n in (1, 3) for who in ("base", "sft", "policy")]
    assert len(session.messages) == 4


def test_unknown_commands_and_absent_models_show_the_help_and_cost_no_turn() -> None:
    terminal, session = talk("/polcy", "/policy", "", "   ", available=("base", "sft"))
    assert len([text for text in terminal.printed if "/quit leaves" in text]) == 3  # at the start and for each
    assert (session.messages, answers(terminal)) == ([], [])


# ---- the session --------------------------------------------------------------------------------------------


def config(folder: Path, cache: Path) -> Config:
    section = {"data": {"source": "unused.jsonl"}}
    return parse_config(
        {
            "run_dir": str(folder),
            "model": {"name": "tiny", "cache_dir": str(cache), "device": "cpu"},
            "lora": {"r": 4, "alpha": 8.0},
            **dict.fromkeys(("sft", "reward", "policy", "evaluate"), section),
        }
    )


@pytest.fixture
def backbone(cache: Path) -> Backbone:
    return noisy(noisy(tiny(cache), "sft"), "policy", seed=2)


def test_an_answer_is_what_that_model_generates(backbone: Backbone, tmp_path: Path, cache: Path) -> None:
    session = Session(backbone, config(tmp_path, cache), 0.0, 8)
    session.messages.append({"role": "user", "content": "Hi"})
    prompt = backbone.chat.prompt_ids(session.messages)
    for name, adapter in (("base", None), ("sft", "sft"), ("policy", "policy")):
        done = generate(backbone, adapter, [prompt], temperature=0, max_new_tokens=8)
        assert session.answer(name) == backbone.chat.decode(done.ids(0))


def test_answers_differ_from_one_session_to_the_next(backbone: Backbone, tmp_path: Path, cache: Path) -> None:
    torch.manual_seed(0)
    found = set()
    for _ in range(2):
        torch.manual_seed(0)
        session = Session(backbone, config(tmp_path, cache), 1.0, 30)
        session.messages.append({"role": "user", "content": "Hi"})
        found.add(session.answer("base"))
    assert len(found) == 2


# ---- converse -----------------------------------------------------------------------------------------------


def test_it_talks_to_a_finished_run(
    backbone: Backbone, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path / "run")
    run.create(dump_config(config(tmp_path / "elsewhere", cache)))
    for stage in ("sft", "policy"):
        out = run.open_stage(stage, "mark")
        backbone.save(stage, out.path / "adapter")
        out.finish({}, artifacts={stage: "adapter"})
    terminal = Terminal("/all", "Hi", "/quit")
    monkeypatch.setattr("pipeline.chat.Console", lambda: terminal)
    converse(run.path, "policy", 0.0, 4)
    for who in ("base", "sft", "policy"):
        assert [text for text in terminal.printed if f"]{who}[" in text]


def test_a_stage_that_isnt_finished_cant_answer(tmp_path: Path, cache: Path) -> None:
    RunDir(tmp_path).create(dump_config(config(tmp_path, cache)))
    with pytest.raises(RunError, match="no finished policy stage; there is base"):
        converse(tmp_path, "policy", None, None)


def test_no_run_and_no_such_model_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"config\.yaml is missing"):
        converse(tmp_path, "policy", None, None)
    with pytest.raises(ConfigError, match="'reward': choose base, sft, dpo or policy"):
        converse(tmp_path, "reward", None, None)
