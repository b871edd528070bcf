"""From rows to tokens: what truncation takes away is a bad row, and parts of the data never overlap."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config, DataConfig, parse_config
from pipeline.data.rows import DataError
from pipeline.data.schema import prompt_text
from pipeline.data.splits import split_by_prompt
from pipeline.lm.chat import ChatFormat
from pipeline.stages import inputs
from pipeline.stages.inputs import Source, encode_demonstrations, encode_pairs, encode_prompts
from pipeline.stages.reward import split_pairs
from tests.lm.builders import tiny


@pytest.fixture(scope="module")
def chat(cache: Path) -> ChatFormat:
    return tiny(cache).chat


def whole_config(**reward: Any) -> Config:
    data = {"source": "unused.jsonl"}
    sections: dict[str, Any] = {name: {"data": data} for name in ("sft", "policy", "evaluate")}
    return parse_config({"model": {"name": "tiny"}, **sections, "reward": {"data": data, **reward}})


def read(data: DataConfig, kind: Any) -> Source:
    return inputs.read(whole_config(), data, kind)


def section(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> DataConfig:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataConfig(source=str(path), **options)


def header(chat: ChatFormat, text: str) -> int:
    return len(chat.prompt_ids([{"role": "user", "content": text}]))


# ---- truncation ---------------------------------------------------------------------------------------------


def test_demonstrations_are_cut_and_keep_what_can_still_be_taught(tmp_path: Path, chat: ChatFormat) -> None:
    source = read(section(tmp_path, [{"prompt": "Hi", "completion": "abcdef"}]), "demonstrations")
    start = header(chat, "Hi")
    (cut,) = encode_demonstrations(chat, source, start + 3)
    assert (len(cut.ids), sum(cut.supervised)) == (start + 3, 3)
    assert chat.decode(cut.ids[start:]) == "abc"


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_demonstration_with_nothing_left_to_teach_is_a_bad_row(tmp_path: Path, chat: ChatFormat, policy: str) -> None:
    rows = [{"prompt": "Hi", "completion": "x"}, {"prompt": "H" * 50, "completion": "x"}]
    source = read(section(tmp_path, rows, on_bad_row=policy), "demonstrations")
    length = header(chat, "Hi") + 2
    if policy == "error":
        with pytest.raises(DataError, match=r"rows\.jsonl:2.*nothing supervised after truncation.*max_length"):
            encode_demonstrations(chat, source, length)
    else:
        assert len(encode_demonstrations(chat, source, length)) == 1
        account = source.account(train=1)
        assert account["reasons"] == {"nothing supervised after truncation": 1}
        assert (account["rejected"], account["used"], account["train"]) == (1, 2, 1)


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_pair_that_the_cut_makes_equal_is_a_bad_row(tmp_path: Path, chat: ChatFormat, policy: str) -> None:
    rows = [
        {"prompt": "Hi", "chosen": "same start, good", "rejected": "same start, bad"},
        {"prompt": "Hi", "chosen": "good", "rejected": "bad"},
    ]
    source = read(section(tmp_path, rows, on_bad_row=policy), "preferences")
    length = header(chat, "Hi") + 8
    if policy == "error":
        with pytest.raises(DataError, match=r"rows\.jsonl:1.*chosen equals rejected after truncation"):
            encode_pairs(chat, source, length)
    else:
        (pair,) = encode_pairs(chat, source, length)
        assert pair.row.chosen == "good"
        assert source.account()["reasons"] == {"chosen equals rejected after truncation": 1}
    whole = read(section(tmp_path, rows), "preferences")
    assert len(encode_pairs(chat, whole, 512)) == 2


def test_a_pair_is_prompt_plus_each_answer(tmp_path: Path, chat: ChatFormat) -> None:
    source = read(section(tmp_path, [{"prompt": "Hi", "chosen": "good", "rejected": "bad"}]), "preferences")
    (pair,) = encode_pairs(chat, source, 512)
    assert pair.chosen[: pair.prompt_length] == pair.rejected[: pair.prompt_length]
    assert chat.decode(pair.chosen[pair.prompt_length :]) == "good"
    assert pair.chosen[-1] == chat.tokenizer.eos_token_id


def test_a_prompt_that_is_too_long_is_a_bad_row_never_cut(tmp_path: Path, chat: ChatFormat) -> None:
    rows = [{"prompt": "Hi"}, {"prompt": "H" * 50}]
    source = read(section(tmp_path, rows, on_bad_row="skip"), "prompts")
    ((prompt, ids),) = encode_prompts(chat, source, header(chat, "Hi"))
    assert prompt_text(prompt.messages) == "Hi"
    assert len(ids) == header(chat, "Hi")
    assert source.account()["reasons"] == {"prompt too long": 1}
    strict = read(section(tmp_path, rows), "prompts")
    with pytest.raises(DataError, match="raise max_prompt_length"):
        encode_prompts(chat, strict, 40)
    assert len(encode_prompts(chat, strict)) == 2  # without a limit


def test_text_for_people_shows_roles_only_in_conversations() -> None:
    turns = [
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "C"},
    ]
    assert prompt_text(turns[:1]) == "A"
    assert prompt_text(turns) == "user: A\nassistant: B\nuser: C"


# ---- parts --------------------------------------------------------------------------------------------------

ROWS = [{"prompt": f"question {i}"} for i in range(300)]


def prompts(tmp_path: Path, rows: list[dict[str, Any]], part: str | None) -> set[str]:
    return {row.key for row in read(section(tmp_path, rows, part=part), "prompts").rows}


def test_parts_are_disjoint_and_together_everything(tmp_path: Path) -> None:
    low, middle, high = (prompts(tmp_path, ROWS, part) for part in ("0-50", "50-80", "80-100"))
    assert low | middle | high == {row["prompt"] for row in ROWS}
    assert len(low) + len(middle) + len(high) == 300
    assert (len(low) / 300, len(middle) / 300) == pytest.approx((0.5, 0.3), abs=0.1)  # 3 standard errors


def test_a_part_can_be_split_again_under_any_seed(tmp_path: Path) -> None:
    """The same hash twice would put the whole part on one side of the second split."""
    rows = read(section(tmp_path, ROWS, part="0-30"), "prompts").rows
    for seed in range(3):
        held = split_by_prompt(rows, {"train": 0.7, "held": 0.3}, seed=seed)["held"]
        assert len(held) / len(rows) == pytest.approx(0.3, abs=0.2)  # some 60 rows: three standard errors


def test_parts_dont_depend_on_the_order_or_on_other_rows(tmp_path: Path) -> None:
    part = prompts(tmp_path, ROWS, "20-60")
    assert prompts(tmp_path, ROWS[::-1], "20-60") == part
    assert prompts(tmp_path, ROWS[:150], "20-60") == {p for p in part if int(p.split()[1]) < 150}


def test_the_account_names_the_source_and_its_hash(tmp_path: Path) -> None:
    data = section(tmp_path, ROWS, part="0-50")
    account = read(data, "prompts").account()
    assert account["source"] == data.source
    assert account["sha256"] == inputs.source_hash(whole_config(), data)
    assert account["read"] == account["kept"] == 300
    assert account["used"] == len(prompts(tmp_path, ROWS, "0-50"))


def test_relative_files_are_looked_for_in_the_data_folder(tmp_path: Path) -> None:
    section(tmp_path, ROWS)
    config = whole_config().model_copy(update={"data_dir": str(tmp_path)})
    data = DataConfig(source="rows.jsonl")
    assert len(inputs.read(config, data, "prompts").rows) == 300
    assert inputs.source_hash(config, data) == inputs.read(config, data, "prompts").info["sha256"]


def test_a_hub_id_stands_for_itself_in_the_fingerprint() -> None:
    assert inputs.source_hash(whole_config(), DataConfig(source="owner/name")) == "owner/name"


# ---- the split of the preference pairs ----------------------------------------------------------------------


@pytest.mark.parametrize("judge", [0.5, 0.2, 0.0])
def test_reward_judge_and_test_pairs_share_no_prompt(tmp_path: Path, judge: float) -> None:
    rows = [{"prompt": f"q{i // 2}", "chosen": f"a{i}", "rejected": "b"} for i in range(400)]
    pairs = read(section(tmp_path, rows), "preferences").rows
    parts = split_pairs(pairs, whole_config(judge=judge, test=0.25).reward, seed=3)
    assert sum(len(part) for part in parts.values()) == 400
    keys = {name: {row.key for row in part} for name, part in parts.items()}
    names = list(keys)
    assert not any(keys[a] & keys[b] for i, a in enumerate(names) for b in names[:i])
    assert len(parts["test"]) / 400 == pytest.approx(0.25, abs=0.1)  # 200 prompts: three standard errors
    assert ("judge" in parts) == (judge > 0)
    if judge:
        trained = len(parts["judge"]) + len(parts["reward"])
        assert len(parts["judge"]) / trained == pytest.approx(judge, abs=0.1)


def test_no_test_part_and_no_validation_part_are_allowed(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "chosen": "a", "rejected": "b"} for i in range(40)]
    pairs = read(section(tmp_path, rows), "preferences").rows
    parts = split_pairs(pairs, whole_config(test=0.0, validation=0.0, judge=0.0).reward, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"test": 0, "reward": 40, "reward_validation": 0}


def test_no_prompt_left_is_said_at_once(tmp_path: Path, chat: ChatFormat) -> None:
    """The policy stage would wait for a full batch for ever."""
    source = read(section(tmp_path, [{"prompt": "A" * 80}], on_bad_row="skip"), "prompts")
    with pytest.raises(DataError, match="no prompt is left, the shortest is above 20 tokens"):
        encode_prompts(chat, source, 20)


def test_a_part_that_holds_no_row_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"part 99-100 holds none of 1 rows"):
        read(section(tmp_path, [{"prompt": "A"}], part="99-100"), "prompts")
