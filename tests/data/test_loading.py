"""Files as they come: packed, from other systems, empty, damaged, missing; and the options of `load`."""

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.data import DataError, load
from pipeline.data.formats import REQUIRED

ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}", "id": i} for i in range(5)]
SUFFIXES = ["jsonl", "json", "csv", "parquet"]


@pytest.mark.parametrize("suffix", [*SUFFIXES, *(f"{suffix}.gz" for suffix in SUFFIXES)])
def test_every_format_plain_and_packed(write, suffix) -> None:
    path = write(f"x.{suffix}", ROWS)
    loaded = load(path, "demonstrations")
    offset = 2 if "csv" in suffix else 1
    assert [row.completion for row in loaded.rows] == [row["completion"] for row in ROWS]
    assert [row.where for row in loaded.rows] == [f"x.{suffix}:{i + offset}" for i in range(5)]
    assert [int(row.meta["id"]) for row in loaded.rows] == [0, 1, 2, 3, 4]
    assert loaded.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert loaded.counts == {"read": 5, "kept": 5}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unicode_survives_every_format(write, suffix) -> None:
    text = "Zoë 日本語 🦊 \u2028 مرحبا \u00a0 e\u0301"
    assert load(write(f"x.{suffix}", [{"prompt": text}]), "prompts").rows[0].messages[0]["content"] == text


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_line_ends(write_bytes, bom, newline) -> None:
    lines = newline.join([b'{"prompt": "a"}', b"", b'{"prompt": "b"}', b""])
    for name, content in (
        ("x.jsonl", lines),
        ("x.json", lines),
        ("y.json", b'[{"prompt": "a"}, {"prompt": "b"}]'),
    ):
        rows = load(write_bytes(name, bom + content), "prompts").rows
        assert [row.messages[0]["content"] for row in rows] == ["a", "b"]
    cells = newline.join([b"prompt,id", b"a,1", b"", b"b,2", b""])
    rows = load(write_bytes("x.csv", bom + cells), "prompts").rows
    assert [(row.messages[0]["content"], row.where) for row in rows] == [("a", "x.csv:2"), ("b", "x.csv:4")]


def test_csv_cells_are_text_and_lines_are_the_files_own(write_bytes) -> None:
    content = 'prompt,completion\n"two\nlines",007\n\nplain,NA\n"a ""quote"", and","1\n2\n3"\nlast,null\n'
    rows = load(write_bytes("x.csv", content.encode()), "demonstrations").rows
    assert [row.completion for row in rows] == ["007", "NA", "1\n2\n3", "null"]
    assert [row.where for row in rows] == ["x.csv:2", "x.csv:5", "x.csv:6", "x.csv:9"]
    assert rows[2].prompt[0]["content"] == 'a "quote", and'


def test_a_line_may_be_a_plain_string(write) -> None:
    assert [row.key for row in load(write("x.jsonl", ["One?", "Two?"]), "prompts").rows] == ["one?", "two?"]


def test_columns_are_renamed_and_swapped(write) -> None:
    path = write("x.jsonl", [{"q": "a", "good": "b", "bad": "c", "id": 7}])
    names = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    (row,) = load(path, "preferences", columns=names).rows
    assert (row.key, row.chosen, row.rejected, row.meta) == ("a", "b", "c", {"id": 7})

    path = write("y.csv", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    (row,) = load(path, "preferences", columns={"chosen": "rejected", "rejected": "chosen"}).rows
    assert (row.chosen, row.rejected) == ("c", "b")


def test_a_renamed_column_must_be_there(write) -> None:
    path = write("x.jsonl", [{"q": "a", "completion": "b"}, {"completion": "b"}])
    with pytest.raises(
        DataError, match=r"x.jsonl: columns maps 'prompt' to 'question', not there; found q, completion"
    ):
        load(path, "demonstrations", columns={"prompt": "question"})
    with pytest.raises(DataError, match=r"^x.jsonl:2: missing field: 'q' \(as 'prompt'\)"):
        load(path, "demonstrations", columns={"prompt": "q"})


def test_limit_counts_kept_rows(write) -> None:
    rows: list[dict[str, Any]] = [{"prompt": " "}, *({"prompt": str(i)} for i in range(100))]
    loaded = load(write("x.jsonl", rows), "prompts", limit=3, on_bad_row="skip")
    assert [row.key for row in loaded.rows] == ["0", "1", "2"]
    assert loaded.counts == {"read": 4, "kept": 3, "empty prompt": 1}
    assert load(write("x.parquet.gz", rows[1:]), "prompts", limit=50).counts == {"read": 50, "kept": 50}
    assert len(load(write("x.jsonl", rows[1:]), "prompts", limit=1000).rows) == 100


def test_relative_paths_are_sought_here_and_then_in_the_base_folder(write, tmp_path, monkeypatch) -> None:
    (tmp_path / "base" / "data").mkdir(parents=True)
    Path(write("x.jsonl", [{"prompt": "base"}])).rename(tmp_path / "base" / "data" / "x.jsonl")
    monkeypatch.chdir(tmp_path)
    assert load("data/x.jsonl", "prompts", base_dir=tmp_path / "base").rows[0].key == "base"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.jsonl").write_text('{"prompt": "here"}')
    assert load("data/x.jsonl", "prompts", base_dir=tmp_path / "base").rows[0].key == "here"


def test_a_missing_file_names_its_neighbours(write, tmp_path) -> None:
    write("train.jsonl.gz", [{"prompt": "a"}])
    with pytest.raises(DataError, match=r"no data file at .*trian.jsonl.gz\. Did you mean .*train.jsonl.gz\?"):
        load(str(tmp_path / "trian.jsonl.gz"), "prompts")
    with pytest.raises(DataError, match=r"no data file at .*Fix: correct the path"):
        load(str(tmp_path / "nowhere" / "x.jsonl"), "prompts")
    with pytest.raises(DataError, match="is a folder"):
        load(str(tmp_path), "prompts")


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "blank.jsonl"])
def test_an_empty_file_is_an_error(write_bytes, name) -> None:
    with pytest.raises(DataError, match=f"{name} is empty"):
        load(write_bytes(name, b"\n \n" if name.startswith("blank") else b""), "prompts")


def test_a_header_without_rows_is_empty(write_bytes) -> None:
    with pytest.raises(DataError, match=r"x.csv is empty"):
        load(write_bytes("x.csv", b"prompt,completion\n"), "prompts")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl.gz", b'{"prompt": "a"}'),
        ("x.parquet", b"PAR1"),
        ("x.parquet.gz", b"\x1f\x8b\x08\x00"),
        ("x.csv", b"prompt,id\na,1\nb,2,3\n"),
        ("x.csv", b"prompt\n\xff\xfe\n"),
        ("x.csv", b"\nprompt\na\n"),
        ("x.json", b'[{"prompt": "a"},'),
        ("x.json", b"[" * 100_000),
    ],
)
def test_a_damaged_file_is_named(write_bytes, name, content) -> None:
    with pytest.raises(DataError, match=rf"{name} cannot be read as \w+: .*Fix: repair the file"):
        load(write_bytes(name, content), "prompts")


def test_options_that_make_no_sense(write) -> None:
    path = write("x.jsonl", [{"prompt": "a"}])
    for options, message in (
        ({"limit": 0}, "limit = 0 would keep no row"),
        ({"system": " "}, "system is blank"),
        ({"split": "test"}, "is a file and has no splits"),
        ({"on_bad_row": "warn"}, "use 'error' or 'skip'"),
    ):
        with pytest.raises(DataError, match=message):
            load(path, "prompts", **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="kind = 'pairs' is unknown: use one of demonstrations, preferences, prompts"):
        load(path, "pairs")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="unknown suffix"):
        load(str(Path(path).rename(Path(path).with_suffix(".txt"))), "prompts")


def test_a_file_name_is_never_a_pattern(write) -> None:
    assert load(write("x[1].parquet", [{"prompt": "a"}]), "prompts").rows[0].where == "x[1].parquet:1"


def test_the_hub(monkeypatch) -> None:
    table = datasets.Dataset.from_list([{"question": "a", "answer": "b"}, {"question": "", "answer": "b"}])
    asked = []

    def load_dataset(*names: Any, **options: Any) -> datasets.Dataset:
        asked.append((names, options))
        return table

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    loaded = load("owner/name", "demonstrations", split="test", subset="main", on_bad_row="skip")
    assert asked == [(("owner/name", "main"), {"split": "test"})]
    assert (loaded.rows[0].where, loaded.sha256) == ("owner/name[test]:1", table._fingerprint)
    assert loaded.counts == {"read": 2, "kept": 1, "empty prompt": 1}
    with pytest.raises(DataError, match=r"^owner/name\[train\]:2: empty prompt"):
        load("owner/name", "demonstrations")


def test_an_unreachable_hub_is_one_sentence(monkeypatch) -> None:
    def load_dataset(*names: Any, **options: Any) -> None:
        raise ConnectionError("Couldn't reach the Hub\nwith a long tail")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"'owner/name' is not a file, .*Couldn't reach the Hub. Fix: ") as error:
        load("owner/name", "prompts")
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_loading_twice_gives_the_same(write) -> None:
    path = write("x.csv", ROWS)
    assert load(path, "demonstrations") == load(path, "demonstrations")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "gpt", "x"]), "content": JSON})
ROW = st.dictionaries(
    st.sampled_from(sorted({name for sets in REQUIRED.values() for needed in sets for name in needed} | {"margin"})),
    JSON | st.lists(TURN, max_size=3) | st.sampled_from(["\n\nHuman: a\n\nAssistant: b", "\ud800"]),
    max_size=5,
)
LINE = st.binary(max_size=20) | (ROW | JSON).map(lambda value: json.dumps(value).encode())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINE, max_size=5), kind=st.sampled_from(["demonstrations", "preferences", "prompts"]))
@example(lines=[b'{"prompt": "\\ud800"}'], kind="prompts")
@example(lines=[b"1" * 5000], kind="prompts")
def test_no_line_brings_down_the_loader(tmp_path, lines, kind) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        loaded = load(str(path), kind, on_bad_row="skip")
    except DataError:
        return
    rejected = sum(loaded.counts.values()) - loaded.counts["read"] - loaded.counts["kept"]
    assert loaded.counts["kept"] == len(loaded.rows) == loaded.counts["read"] - rejected
    assert all(row.key.encode() for row in loaded.rows)
