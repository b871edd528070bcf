"""The command line: help that lists everything, errors in one message, and no heavy import before its time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.rundir import RunDir

Align = Callable[..., tuple[int, str, str]]  # (exit code, standard output, standard error)

ROOT = Path(__file__).parents[1]
SMOKE = "configs/smoke.yaml"
STAGES = ("run", "sft", "reward", "dpo", "policy", "evaluate")
COMMANDS = (*STAGES, "report", "config", "summary", "chat")


def squeeze(text: str) -> str:
    """Without any white space: terminals wrap lines where they like."""
    return "".join(text.split())


@pytest.fixture
def align(at_root: Path, tmp_path: Path, cache: Path, run_align: Align) -> Align:
    """`align …` in the repository's root."""
    return run_align


@pytest.fixture
def here(tmp_path: Path, cache: Path) -> list[str]:
    """Overrides that keep a run inside the test's folder."""
    return [f"run_dir={tmp_path / 'run'}", f"model.cache_dir={cache}", "logging.progress=false"]


# ---- help ---------------------------------------------------------------------------------------------------


def test_the_help_lists_every_command_and_where_to_start(align: Align) -> None:
    code, out, _ = align("--help")
    assert code == 0
    assert not [name for name in COMMANDS if name not in out]
    assert squeeze("align run configs/quickstart.yaml") in squeeze(out)


@pytest.mark.parametrize("command", STAGES)
def test_the_help_of_a_stage_explains_overrides_and_force(align: Align, command: str) -> None:
    code, out, _ = align(command, "--help")
    assert code == 0
    for part in ("CONFIG", "KEY=VALUE", "run_dir=PATH", "--force"):
        assert squeeze(part) in squeeze(out)


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("report", ["CONFIG", "KEY=VALUE"]),
        ("config", ["CONFIG", "KEY=VALUE"]),
        ("summary", ["RUN", "--json"]),
        ("chat", ["RUN", "--model", "--temperature", "--max-new-tokens", "/quit"]),
    ],
)
def test_the_help_of_the_others(align: Align, command: str, parts: list[str]) -> None:
    code, out, _ = align(command, "--help")
    assert code == 0
    assert not [part for part in parts if part not in out]


def test_no_arguments_show_the_help(align: Align) -> None:
    _, out, err = align()
    assert "evaluate" in out + err


def test_version(align: Align) -> None:
    from pipeline import __version__

    assert align("--version")[1] == f"align {__version__}\n"


# ---- errors that the user can mend --------------------------------------------------------------------------


def is_one_message(code: int, out: str, err: str, *parts: str) -> None:
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("error: ") == 1
    assert "Traceback" not in out + err
    assert not [part for part in parts if squeeze(part) not in squeeze(err)], err


def test_an_unknown_key(align: Align) -> None:
    is_one_message(*align("run", SMOKE, "policy.stepz=1"), "policy.stepz: unknown key; did you mean steps?")


def test_a_missing_config(align: Align) -> None:
    is_one_message(*align("run", "configs/smok.yaml"), "no config file", "did you mean configs/smoke.yaml")


def test_a_missing_data_file(align: Align, here: list[str]) -> None:
    is_one_message(*align("sft", SMOKE, *here, "sft.data.source=data/nowhere.jsonl"), "data/nowhere.jsonl")


def test_a_missing_predecessor(align: Align, here: list[str]) -> None:
    is_one_message(*align("reward", SMOKE, *here), "no finished sft stage; run `align sft CONFIG` first")


@pytest.mark.parametrize(
    ("row", "reason"), [("{not json", "not JSON"), ('{"prompt": "", "completion": "x"}', "empty prompt")]
)
def test_a_bad_row(align: Align, here: list[str], tmp_path: Path, row: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' + row + "\n", encoding="utf-8")
    is_one_message(*align("sft", SMOKE, *here, f"sft.data.source={path}"), "rows.jsonl:2", reason)


def test_no_row_left_to_train_on(align: Align, here: list[str]) -> None:
    is_one_message(*align("sft", SMOKE, *here, "sft.validation=1.0"), "sft: no training examples", "lower validation")


def test_a_model_that_isnt_there(align: Align, here: list[str]) -> None:
    is_one_message(*align("sft", SMOKE, *here, "model.name=./no-model"), "'./no-model': no such folder")


def test_a_run_folder_in_the_way_of_a_file(align: Align, here: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file", encoding="utf-8")
    is_one_message(*align("sft", SMOKE, *here), "can't be written", "set run_dir=PATH")


def test_a_missing_run(align: Align) -> None:
    is_one_message(*align("summary", "runs/none-such"), "no run folder at runs/none-such")
    is_one_message(*align("chat", "runs/none-such"), "no run at runs/none-such")


def test_a_model_to_chat_with_that_doesnt_exist(align: Align) -> None:
    is_one_message(*align("chat", "runs/none-such", "--model", "critic"), "'critic': choose base, sft, dpo or policy")


def test_ctrl_c_says_what_is_kept(align: Align, here: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.stages import chain

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chain, "run_stages", interrupt)
    code, _, err = align("run", SMOKE, *here)
    assert code == 130
    assert squeeze("run the same command to go on from the newest checkpoint") in squeeze(err)


def test_a_bug_of_ours_keeps_its_trace(align: Align, here: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.stages import chain

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(chain, "run_stages", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        align("run", SMOKE, *here)


# ---- commands that need no model ----------------------------------------------------------------------------


def test_config_prints_the_whole_resolved_configuration(align: Align) -> None:
    code, out, err = align("config", SMOKE, "seed=7", "policy.algorithm=rloo")
    shown = yaml.safe_load(out)
    assert (code, err) == (0, "")
    assert (shown["seed"], shown["policy"]["algorithm"], shown["run_dir"]) == (7, "rloo", "runs/smoke")
    assert shown["policy"]["gae_lambda"] == 0.95  # a default


def test_summary_is_one_line_of_json(align: Align, tmp_path: Path) -> None:
    RunDir(tmp_path).open_stage("sft", "mark").finish({"loss": 0.25, "words": ["é"]})
    code, out, err = align("summary", str(tmp_path), "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert json.loads(out)["sft.loss"] == 0.25
    _, table, _ = align("summary", str(tmp_path))
    assert [line.split() for line in table.splitlines() if line.startswith("sft.loss")] == [["sft.loss", "0.25"]]


@pytest.mark.parametrize("arguments", [["config", SMOKE], ["--help"], ["run", "--help"], ["config", SMOKE, "seed=x"]])
def test_what_needs_no_model_imports_none(arguments: list[str]) -> None:
    """`align --help` answers at once: torch and transformers alone take seconds to import."""
    script = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
