"""Whatever stands in a config or a data file: a checked value, or one of our own errors. Never a traceback.

By default a few hundred cases; `pytest -m slow tests/test_fuzz.py` runs more than ten thousand.
"""

import contextlib
import copy
import gzip
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import Config, ConfigError, apply_overrides, dump_config, load_config, parse_config
from pipeline.data import BadRows, DataError, Demonstration, Preference, Prompt, load
from pipeline.data.formats import REQUIRED
from tests.conftest import ROOT

SOUND = yaml.safe_load((ROOT / "configs" / "smoke.yaml").read_text(encoding="utf-8"))
FEW, MANY = 100, 2500
TEXT = st.text(max_size=12)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
ANYTHING = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)


def fuzzed(*strategies: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """Run a property on few cases by default and on many in the slow suite."""

    def decorate(check: Callable[..., None]) -> Any:
        quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
        run = {n: settings(max_examples=n, suppress_health_check=quiet)(given(*strategies)(check)) for n in (FEW, MANY)}

        @pytest.mark.parametrize("cases", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
        def test(cases: int) -> None:
            run[cases]()

        test.__doc__ = check.__doc__
        return test

    return decorate


def paths(tree: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place in a nested mapping."""
    for key, value in tree.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from paths(value, (*before, key))


# All settings there are, not only those that the file names.
EVERYWHERE = sorted(paths(parse_config(SOUND).model_dump()))


@fuzzed(st.lists(st.tuples(st.sampled_from(EVERYWHERE), st.none() | TEXT, ANYTHING), min_size=1, max_size=3))
def test_a_config_is_valid_or_refused(changes: list[tuple[tuple[str, ...], str | None, Any]]) -> None:
    """Values of any type anywhere, and keys that nobody knows."""
    tree = copy.deepcopy(SOUND)
    for path, unknown, value in changes:
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                break
        else:
            node[path[-1] if unknown is None else unknown] = value
    with contextlib.suppress(ConfigError):
        assert_sound(parse_config(tree))


def assert_sound(config: Config) -> None:
    """What was accepted is finite, and what is printed of it is read again as the same."""
    for path in paths(config.model_dump()):
        value: Any = config.model_dump()
        for name in path:
            value = value[name]
        assert not isinstance(value, float) or math.isfinite(value)
    assert parse_config(yaml.safe_load(dump_config(config))) == config


@fuzzed(st.text(max_size=80) | st.binary(max_size=80))
def test_a_config_file_holds_anything(content: str | bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        with pytest.raises(ConfigError):  # no random text names a model and five data files
            load_config(path)
        assert [file.name for file in Path(folder).iterdir()] == ["any.yaml"]


@fuzzed(st.lists(TEXT | st.builds(lambda key, value: f"{'.'.join(key)}={value}", st.sampled_from(EVERYWHERE), TEXT)))
def test_overrides_are_applied_or_refused(overrides: list[str]) -> None:
    before = copy.deepcopy(SOUND)
    with contextlib.suppress(ConfigError):
        assert_sound(parse_config(apply_overrides(SOUND, overrides)))
    assert before == SOUND


# ---- data ---------------------------------------------------------------------------------------------------

COLUMNS = sorted({column for ways in REQUIRED.values() for way in ways for column in way} | {"margin", "extra"})
ROLES = st.sampled_from(["user", "assistant", "system"])
MESSAGE = st.dictionaries(st.sampled_from(["role", "content", "value"]), SCALAR | ROLES)
CELL = ANYTHING | st.lists(MESSAGE, max_size=3) | st.sampled_from(["\n\nHuman: a\n\nAssistant: b", "x"])
ROW = st.dictionaries(st.sampled_from(COLUMNS), CELL, max_size=5) | ANYTHING
KINDS = st.sampled_from(["demonstrations", "preferences", "prompts"])


def assert_rows(found: Any) -> None:
    """What was kept is what the stages count on."""
    for row in found.rows:
        if isinstance(row, Preference):
            assert row.chosen.strip()
            assert row.rejected.strip()
            assert row.chosen != row.rejected
            assert math.isfinite(row.margin)
        elif isinstance(row, Demonstration):
            assert row.completion.strip()
            assert row.messages[-1]["role"] == "assistant"
        else:
            assert isinstance(row, Prompt)
            assert row.messages[-1]["role"] == "user"
        assert row.where.startswith("any.")
        assert all(isinstance(turn["content"], str) for turn in row.prompt)


def check_file(name: str, content: bytes, kind: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        bad = BadRows("skip")
        with contextlib.suppress(DataError):
            found = load(str(path), kind, bad_rows=bad)
            assert_rows(found)
            assert found.counts["kept"] + sum(bad.counts.values()) == found.counts["read"]
        assert [file.name for file in Path(folder).iterdir()] == [name]


@fuzzed(st.lists(ROW, max_size=4), KINDS, st.booleans())
def test_json_lines_of_anything(rows: list[Any], kind: str, zipped: bool) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    check_file("any.jsonl.gz" if zipped else "any.jsonl", gzip.compress(content) if zipped else content, kind)


@fuzzed(st.binary(max_size=120), KINDS, st.sampled_from(["jsonl", "json", "csv", "jsonl.gz", "parquet"]))
def test_files_of_any_bytes(content: bytes, kind: str, suffix: str) -> None:
    check_file(f"any.{suffix}", content, kind)


@fuzzed(
    st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=4, unique=True),
    st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=5), max_size=4),
    KINDS,
)
def test_tables_of_any_text(head: list[str], rows: list[list[str]], kind: str) -> None:
    content = "\n".join([",".join(head), *(",".join(row) for row in rows)])
    check_file("any.csv", content.encode(), kind)
