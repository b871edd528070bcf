"""`align collect` from the command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.collect.store import ADJUDICATOR, Store, labels_path
from tests.conftest import Align

from .builders import finished_run, label, pair


def test_the_page_is_the_default_command(run_align: Align, tmp_path: Path) -> None:
    """Told by what each complains about: the run, not the words."""
    for words in (("collect",), ("collect", "serve"), ("collect", "--port", "0")):
        code, _, error = run_align(*words, str(tmp_path / "none"))
        assert code == 2
        assert "no finished evaluate stage" in error
    code, _, error = run_align("collect", "status", str(tmp_path / "none"))
    assert (code, "has no labels yet; `align collect" in error) == (2, True)
    assert "status" in run_align("collect", "--help")[1]
    assert "--overlap" in run_align("collect", "serve", "--help")[1]
    assert "Usage" in run_align("collect")[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--pair", "sft_vs_dpo"), "has answers of sft, policy"),
        (("--outputs", "x.json"), "belong together"),
        (("--outputs", "x.json", "--against", "y.json", "--pair", "sft_vs_policy"), "give one of them"),
        (("--annotators", "anna,anna"), "names anna twice"),
        (("--ask", "best"), "--ask best: there is only"),
        (("--language", "xx"), "--language xx"),
        (("--guidelines", "none.md"), "none.md can't be read"),
        (("--host", "0.0.0.0"), "--token SECRET"),
        (("--host", "0.0.0.0", "--token", "short"), "at least 16"),
    ],
)
def test_bad_input_is_one_sentence(run_align: Align, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    code, _, error = run_align("collect", str(finished_run(tmp_path, prompts=2)), "--port", "0", *words)
    assert code == 2
    assert told in error
    assert error.count("\n") == 1


def test_status_tells_how_far_everybody_is(run_align: Align, tmp_path: Path) -> None:
    store = Store(labels_path(tmp_path))
    store.add_pairs([pair(1), pair(2)])
    for name, verdict in (("anna", "a"), ("ben", "b"), (ADJUDICATOR, "b")):
        store.add_label(label(pair(1), name, verdict))
    _, told, _ = run_align("collect", "status", str(tmp_path))
    assert [line.split()[:3] for line in told.splitlines()] == [
        [name, "1", "verdicts,"] for name in (ADJUDICATOR, "anna", "ben")
    ]
    found = json.loads(run_align("collect", "status", str(tmp_path), "--json")[1])
    assert {key: found[key] for key in ("pairs", "pairs_with_a_verdict", "disputes", "settled")} == {
        **{"pairs": 2, "pairs_with_a_verdict": 1, "disputes": 1, "settled": 1}
    }
    assert [one["annotator"] for one in found["annotators"]] == [ADJUDICATOR, "anna", "ben"]


def test_it_prints_addresses_and_ends_with_a_summary(tmp_path: Path) -> None:
    run = finished_run(tmp_path, prompts=4)
    Store(labels_path(run)).add_label(label(pair(1), "anna", "a"))
    command = [sys.executable, "-m", "pipeline.cli", "collect", str(run), "--port", "0", "--annotators", "anna,ben"]
    # Who runs the tests in the background has Ctrl-C ignored, and so would the server until it listens.
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    server = subprocess.Popen(command, preexec_fn=listen, **pipes)
    assert server.stdout is not None
    lines = [server.stdout.readline().split() for _ in range(3)]
    assert [name for name, _ in lines] == ["anna", "ben", ADJUDICATOR]
    assert all(address.startswith("http://127.0.0.1:") for _, address in lines)
    assert server.stderr is not None
    assert server.stderr.readline().startswith("4 pairs, 0 planted")
    os.kill(server.pid, signal.SIGINT)
    out, error = server.communicate(timeout=30)
    assert server.returncode == 0, error
    assert f"0 new verdicts, 1 in {labels_path(run)}" in error
    assert out.startswith("anna ")
