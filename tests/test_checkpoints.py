"""Snapshots come back exactly, are whole or not there, and a damaged one costs no more than itself."""

import json
import math
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline import checkpoints, stopping
from pipeline.checkpoints import Checkpoints, _flatten, _restore
from pipeline.rundir import RunError, StageDir, read_jsonl

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers() | st.text() | st.tuples(st.integers()), inner, max_size=3)
    ),
    max_leaves=8,
)


def stage(folder: Path, *, mark: str = "mark") -> StageDir:
    return StageDir(folder / "policy", "policy", mark, resume=True)


def opened(folder: Path, **options: Any) -> tuple[StageDir, Checkpoints]:
    out = stage(folder)
    return out, Checkpoints(out, **({"seconds": 0, "keep": 2} | options))


def names(out: StageDir) -> list[str]:
    return sorted(path.name for path in out.checkpoints.iterdir())


@given(VALUES)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    """Also tuples, and keys that JSON doesn't have."""
    back = _restore(json.loads(json.dumps(_flatten(value, {}))), {})
    assert back == value
    assert repr(back) == repr(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_come_back_bit_by_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    value = torch.randn(3, 4).to(dtype)
    _, kept = opened(tmp_path)
    kept.save("a", {"whole": value, "view": [value.T], "scalar": (value[0, 0],)})
    back = opened(tmp_path)[1].latest("a")
    assert back is not None
    assert torch.equal(back["whole"], value)
    assert torch.equal(back["view"][0], value.T)
    assert torch.equal(back["scalar"][0], value[0, 0])
    assert back["whole"].dtype == dtype


def test_only_tensors_and_plain_values(tmp_path: Path) -> None:
    out, kept = opened(tmp_path)
    with pytest.raises(TypeError, match="Path"):
        kept.save("a", {"path": tmp_path})
    assert names(out) == []


def test_random_numbers_go_on(tmp_path: Path) -> None:
    torch.manual_seed(3)
    torch.rand(5)
    _, kept = opened(tmp_path)
    kept.save("a", {})
    expected = torch.rand(5)
    opened(tmp_path)[1].latest("a")
    assert torch.equal(torch.rand(5), expected)


def test_the_newest_of_each_name_stay(tmp_path: Path) -> None:
    out, kept = opened(tmp_path)
    for name in ("reward", "judge", "judge", "judge", "judge"):
        kept.save(name, {"step": name})
    assert names(out) == ["000001-reward", "000004-judge", "000005-judge"]
    again = opened(tmp_path)[1]
    assert again.latest("reward") == {"step": "reward"}
    assert again.latest("policy") is None


def test_the_logs_go_back_with_it(tmp_path: Path) -> None:
    out, kept = opened(tmp_path)
    out.log(1, {"loss": 1.0})
    out.sample([{"text": "first"}])
    kept.save("a", {"step": 1})
    out.log(2, {"loss": 0.5})
    out.sample([{"text": "lost"}])
    with open(out.path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 3, "lo')  # killed in the middle of a line
    again, _ = opened(tmp_path)
    assert read_jsonl(again.path / "metrics.jsonl") == [{"step": 1, "loss": 1.0}]
    assert read_jsonl(again.path / "samples.jsonl") == [{"text": "first"}]


def test_without_a_checkpoint_nothing_counts(tmp_path: Path) -> None:
    out, _ = opened(tmp_path)
    out.log(1, {"loss": 1.0})
    assert read_jsonl(opened(tmp_path)[0].path / "metrics.jsonl") == []


def test_time_and_memory_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, kept = opened(tmp_path)
    monkeypatch.setattr(out, "_before", {"seconds": 1000.0, "peak_rss_mb": 1e9})
    kept.save("a", {})
    again, _ = opened(tmp_path)
    result = again.finish({})
    assert 1000 <= result.seconds < 1100
    assert result.peak_rss_mb == 1e9
    assert not again.checkpoints.exists()


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    _, kept = opened(tmp_path)
    kept.save("a", {})
    assert Checkpoints(stage(tmp_path, mark="other")).latest("a") is None


# ---- damage -------------------------------------------------------------------------------------------------


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("part", ["state.json", "state.safetensors", "hashes.json"])
@pytest.mark.parametrize("how", ["spoilt", "cut", "gone"])
def test_a_damaged_one_is_passed_over_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, how: str
) -> None:
    out, kept = opened(tmp_path)
    for step in (1, 2):
        out.log(step, {"loss": 1.0})
        kept.save("a", {"step": step, "weight": torch.ones(3)})
    path = out.checkpoints / "000002-a" / part
    if how == "spoilt":
        spoil(path)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    again, found = opened(tmp_path)
    state = found.latest("a")
    assert state is not None
    assert state["step"] == 1
    assert len(read_jsonl(again.path / "metrics.jsonl")) == 1
    assert "000002-a" in "".join(capsys.readouterr().err.split())  # a terminal breaks long lines


def test_a_log_that_lost_its_end_makes_a_checkpoint_useless(tmp_path: Path) -> None:
    out, kept = opened(tmp_path)
    out.log(1, {"loss": 1.0})
    kept.save("a", {})
    (out.path / "metrics.jsonl").write_text("", encoding="utf-8")
    assert opened(tmp_path)[1].latest("a") is None


def test_what_was_being_written_is_swept_away(tmp_path: Path) -> None:
    out, kept = opened(tmp_path)
    kept.save("a", {"step": 1})
    shutil.copytree(out.checkpoints / "000001-a", out.checkpoints / ".000002-a")
    assert names(opened(tmp_path)[0]) == ["000001-a"]


def test_a_full_disk_is_one_sentence_and_costs_nothing_kept(tmp_path: Path) -> None:
    """A limit on the size of files is what a full disk is to whoever writes."""
    out, kept = opened(tmp_path)
    kept.save("a", {"step": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"no checkpoint could be written.*run the same command"):
            kept.save("a", {"step": 2, "weight": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(out) == ["000001-a"]
    assert opened(tmp_path)[1].latest("a") == {"step": 1}


# ---- when ---------------------------------------------------------------------------------------------------


def test_one_is_written_when_it_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    out, kept = opened(tmp_path, seconds=60)
    for seconds, count in ((30, 0), (59, 0), (61, 1), (100, 1), (130, 2)):
        now[0] = 100.0 + seconds
        kept.step("a", lambda: {"step": 0})
        assert len(names(out)) == count


def test_who_asks_to_stop_gets_a_checkpoint_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, kept = opened(tmp_path, seconds=math.inf)
    with stopping.stopping():
        kept.step("a", dict)
        assert names(out) == []
        stopping.signal.raise_signal(stopping.signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            kept.step("a", dict)
        with pytest.raises(KeyboardInterrupt):  # the second time at once
            stopping.signal.raise_signal(stopping.signal.SIGINT)
    assert names(out) == ["000001-a"]
    assert not stopping.stop_requested()
