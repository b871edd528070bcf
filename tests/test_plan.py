"""`align plan`: says what fits, what would change that, and is near what was measured."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import LlamaConfig

from pipeline.cli.look import parse_memory
from pipeline.config import ConfigError, load_config
from pipeline.lm.footprint import Footprint
from pipeline.stages import plan as planning
from pipeline.stages import sizes
from tests.conftest import Align

TINY = ["model.name=tiny", "model.sha256=null", "logging.progress=false"]


def test_every_stage_has_its_peak(at_root: Path, run_align: Align, cache: Path) -> None:
    code, out, err = run_align("plan", "configs/smoke.yaml", f"model.cache_dir={cache}", "--json")
    assert code == 0, err
    peaks = json.loads(out)
    assert list(peaks) == ["sft", "reward", "policy", "evaluate"]
    assert all(100 < peak < 4000 for peak in peaks.values())


def test_the_table_tells_what_to_change(at_root: Path, run_align: Align, cache: Path) -> None:
    code, out, _ = run_align("plan", "configs/smoke.yaml", f"model.cache_dir={cache}", "--device-memory", "24GiB")
    assert code == 0
    shown = " ".join(out.replace("│", " ").replace("┃", " ").split())
    for part in ("training:", "half the microbatch", "gradient checkpointing", "a 4-bit base", "full fine-tuning"):
        assert part in shown
    code, out, _ = run_align("plan", "configs/smoke.yaml", f"model.cache_dir={cache}", "--device-memory", "64MB")
    assert code == 1
    assert "no" in out


def test_whole_models_are_planned_and_told_what_adapters_would_take(
    at_root: Path, run_align: Align, tmp_path: Path
) -> None:
    LlamaConfig(hidden_size=512, intermediate_size=1024, num_hidden_layers=4, vocab_size=8192).save_pretrained(tmp_path)
    model = ["configs/smoke.yaml", f"model.name={tmp_path}"]
    code, out, err = run_align("plan", *model, "lora=null")
    assert code == 0, err
    shown = " ".join(out.replace("│", " ").replace("┃", " ").split())
    assert "adapters on the upper half" in shown
    assert "a 4-bit base" in shown
    with_adapters = sizes.footprint(load_config(Path(model[0]), [model[1], "lora={}"]))
    for label, size in list(planning.schools(with_adapters).items())[1:]:  # the first one's label is folded
        assert f"{label} {size / 1e6:,.0f}" in shown


def test_each_remedy_asks_for_less(at_root: Path, cache: Path) -> None:
    config = load_config(Path("configs/quickstart.yaml"), [*TINY, f"model.cache_dir={cache}", "lora.layers=all"])
    peak = max(one.peak for one in planning.plan(config))
    fixes = planning.remedies(config)
    assert set(fixes) == {label for label, _ in planning.REMEDIES}
    fixes.pop("adapters on the upper half")  # keeps states besides, which on two tiny layers weigh more than it saves
    assert all(value <= peak for value in fixes.values())
    assert min(fixes.values()) < peak


def test_the_datas_longest_rows_ask_for_less_than_the_limits(at_root: Path, cache: Path) -> None:
    config = load_config(Path("configs/quickstart.yaml"), [*TINY, f"model.cache_dir={cache}", "sft.max_length=9000"])
    limits, measured = sizes.limits(config), sizes.measured(config)
    assert measured.sft < limits.sft == 9000
    assert measured.prompt <= limits.prompt


def test_a_pairs_prompt_counts_once_where_it_is_packed() -> None:
    tokens = {"prompt": np.array([10, 10]), "chosen": np.array([5, 50]), "rejected": np.array([7, 3])}
    assert sizes.pairs(tokens, 40, packed=False).tolist() == [32, 53]  # 15 + 17, and 60 cut to 40 + 13
    assert sizes.pairs(tokens, 40, packed=True).tolist() == [22, 43]
    assert sizes.pairs(tokens, 8, packed=True).tolist() == [8, 8]  # nothing but the prompt is left


def test_a_microbatch_is_as_long_as_its_longest_rows_together() -> None:
    assert sizes.longest(np.array([3, 9, 1, 6]), 2) == 7.5
    assert sizes.longest(np.array([3, 9]), 8) == 6
    assert sizes.longest(np.zeros(0), 8) == 0


def test_a_model_of_a_billion_parameters_wants_sixteen_gigabytes_to_be_trained_whole() -> None:
    size = Footprint(10**9, 9 * 10**8, 10**7, 16, 16, 2048, 8192, 2048, 512, 128_000, True)
    ways = list(planning.schools(size).values())
    assert ways[0] == 16e9
    assert ways == sorted(ways, reverse=True)
    assert ways[-1] < 1.5e9


@pytest.mark.parametrize(
    ("text", "size"), [("24GiB", 24 * 2**30), ("8GB", 8e9), ("512mb", 512e6), ("1.5 TiB", 1.5 * 2**40), ("900", 900.0)]
)
def test_sizes_are_read(text: str, size: float) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0GiB", "GiB", "5XB"])
def test_no_size_is_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match="24GiB"):
        parse_memory(text)


def test_a_judge_with_a_model_of_its_own_is_a_phase_of_the_evaluation(
    at_root: Path, cache: Path, tmp_path: Path
) -> None:
    """8 layers of 512 are 25 times the tiny base: while such a judge is asked, the evaluation is at its largest."""
    LlamaConfig(hidden_size=512, intermediate_size=1024, num_hidden_layers=8, vocab_size=8192).save_pretrained(tmp_path)
    base = [*TINY, f"model.cache_dir={cache}"]
    without = load_config(Path("configs/smoke.yaml"), base)
    judges = (
        f"evaluate.judges={{own: {{kind: llm_local}}, large: {{kind: llm_local, model: {tmp_path}, batch_size: 2}}}}"
    )
    with_judges = load_config(Path("configs/smoke.yaml"), [*base, judges])
    assert set(sizes.judges(with_judges)) == {"large"}  # the run's own base is there already
    before, after = planning.plan(without)[-1], planning.plan(with_judges)[-1]
    assert after.largest == "judging by large"
    weights = sizes.judges(with_judges)["large"][0].parameters * 4
    assert after.phases["judging by large"]["its model"] == weights
    assert weights < after.peak - sum(before.stays.values()) < 2 * weights
