"""Every recipe loads; each architecture walks every stage on each data set, in its published layout."""

import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from pipeline.config import Config, load_config
from pipeline.data.loaders import load
from pipeline.rundir import STAGES, read_jsonl, summary
from pipeline.stages.chain import run_all
from pipeline.stages.inputs import read
from scripts.plan_recipes import ALGORITHMS, PUBLISHED, RECIPES, Recipe, peaks, recipes, size_of, table
from tests.hub import DATASETS, write_model

DATA = sorted(path.stem for path in RECIPES.glob("*.yaml"))
MODELS = sorted(path.stem for path in (RECIPES / "models").glob("*.yaml"))
# Each architecture on each data set, PPO and RLOO in turn; the template of Llama's and the 4-bit base once each.
WALKS = {
    ("hh", None): "ppo",
    ("hh", "qwen2.5-0.5b"): "rloo",
    ("hh", "qwen3-0.6b"): "ppo",
    ("hh", "llama-3.2-1b"): "rloo",
    ("ultrafeedback", None): "rloo",
    ("ultrafeedback", "qwen2.5-0.5b"): "ppo",
    ("ultrafeedback", "qwen3-0.6b"): "rloo",
    ("tldr", None): "ppo",
    ("tldr", "qwen2.5-0.5b"): "rloo",
    ("tldr", "qwen3-0.6b"): "rloo",
    ("tldr", "qwen3-8b-4bit"): "ppo",
}
AT_ONCE = [
    *[("hh", None), ("hh", "llama-3.2-1b"), ("ultrafeedback", "qwen2.5-0.5b")],
    *[("tldr", "qwen3-0.6b"), ("tldr", "qwen3-8b-4bit")],
]  # everything is met once; the others are slow tests
# Settings that make it short, and let a random model pass; what is read and how stays the recipe's.
SHORT = [
    *(
        "model.device=cpu",
        "logging.progress=false",
        "policy.steps=1",
        "policy.prompts_per_step=2",
        "evaluate.best_of=2",
    ),
    *("policy.sampling.max_new_tokens=5", "reward.calibration_samples=4", "evaluate.bootstrap=50"),
    "gates.skip=[sft_rows, sft_learns, sft_ends, reward_beats_chance, reward_beats_length]",
]
SECTIONS = {"sft": "demonstrations", "reward": "preferences", "policy": "prompts", "evaluate": "prompts"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder in which OWNER/NAME is what the hub has under that name."""
    root = tmp_path_factory.mktemp("hub")
    for name, write in DATASETS.items():
        write(root / "datasets" / name)
    for name in sorted({Recipe(data, model, "ppo").config.model.name for data, model in WALKS}):
        write_model(root / "models" / name, name, PUBLISHED[name], cache)
    return root


@pytest.fixture
def offline(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's data sets come from its folder, through the same call; so do its models, by their relative path."""
    real = datasets.load_dataset

    def local(source: str, subset: str | None, *, split: str) -> Any:
        return real(str(hub / "datasets" / source), subset, split=split, cache_dir=str(hub / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", local)
    monkeypatch.chdir(hub / "models")
    return hub


def test_every_data_set_meets_every_model_with_both_algorithms() -> None:
    found = list(recipes())
    assert len(found) == len(DATA) * (len(MODELS) + 1) * len(ALGORITHMS) == 54
    configs = [recipe.config for recipe in found]
    assert {config.model.name for config in configs} == set(PUBLISHED)
    assert len({(c.model.name, c.policy.data.source, c.policy.algorithm) for c in configs}) == len(found)
    assert len({config.run_dir for config in configs}) == len(found) / len(ALGORITHMS)
    assert {source for config in configs for source in sources(config)} == set(DATASETS)


def sources(config: Config) -> set[str]:
    return {getattr(config, section).data.source for section in SECTIONS}


@pytest.mark.parametrize("data", DATA)
def test_no_prompt_is_in_two_parts(data: str, offline: Path) -> None:
    """SFT and policy share theirs; reward model and evaluation have their own, whatever the split."""
    config = load_config(RECIPES / f"{data}.yaml")
    rows = {name: read(config, getattr(config, name).data, kind).rows for name, kind in SECTIONS.items()}  # type: ignore[arg-type]
    keys = {name: {row.key for row in found} for name, found in rows.items()}
    assert all(len(found) >= 3 for found in keys.values())
    assert not keys["sft"] & keys["reward"]
    assert not keys["evaluate"] & (keys["sft"] | keys["reward"] | keys["policy"])
    assert keys["policy"] == keys["sft"]


@pytest.mark.parametrize("data", DATA)
def test_the_format_is_the_one_that_the_columns_tell(data: str, offline: Path) -> None:
    config = load_config(RECIPES / f"{data}.yaml")
    for section, kind in SECTIONS.items():
        asked = getattr(config, section).data
        assert load(asked.source, kind, split=asked.split).schema == asked.format  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "model"), [pytest.param(*pair, marks=[] if pair in AT_ONCE else [pytest.mark.slow]) for pair in WALKS]
)
def test_every_stage_takes_a_step(data: str, model: str | None, offline: Path, tmp_path: Path) -> None:
    algorithm = WALKS[data, model]
    above = [] if model is None else [str(RECIPES / "models" / f"{model}.yaml")]
    settings = [*above, *SHORT, f"policy.algorithm={algorithm}", f"run_dir={tmp_path / 'run'}"]
    config = load_config(RECIPES / f"{data}.yaml", settings)
    run = run_all(config)
    assert all(run.result(stage) is not None for stage in STAGES)
    (step,) = read_jsonl(run.path / "policy" / "metrics.jsonl")
    assert step["policy/first_ratio_error"] <= 1e-4
    figures = summary(run)
    assert figures["policy.algorithm"] == algorithm
    assert figures["reward.test_pairs"] > 0
    assert figures["evaluate.prompts"] > 2


# ---- sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134.5),
        ("HuggingFaceTB/SmolLM2-360M-Instruct", 361.8),
        ("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1711.4),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494.0),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1543.7),
        ("Qwen/Qwen3-0.6B", 596.0),
        ("Qwen/Qwen3-1.7B", 1720.6),
        ("Qwen/Qwen3-8B", 8190.7),
        ("meta-llama/Llama-3.2-1B-Instruct", 1235.8),
    ],
)
def test_the_published_sizes_give_the_published_numbers_of_parameters(name: str, millions: float) -> None:
    config = next(recipe.config for recipe in recipes() if recipe.config.model.name == name)
    assert size_of(config).parameters / 1e6 == pytest.approx(millions, abs=0.05)


def test_the_tables_in_the_documentation_are_those_that_the_script_prints() -> None:
    shown = (RECIPES.parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    for one in table().split("\n\n"):
        assert one in shown


def test_the_memory_in_the_files_is_what_the_planner_says() -> None:
    for recipe in recipes():
        if recipe.algorithm != "ppo":
            continue
        peak = f"{max(peaks(recipe.config).values()):.1f}"
        if recipe.model is None:
            assert f"PPO: {peak} GB;" in (RECIPES / f"{recipe.data}.yaml").read_text(encoding="utf-8")
        else:
            told = (RECIPES / "models" / f"{recipe.model}.yaml").read_text(encoding="utf-8")
            assert re.search(rf"PPO: .*{re.escape(peak)} (GB )?on {recipe.data}\b", told), (recipe, peak)


def test_eight_billion_parameters_in_four_bits_fit_a_card_of_24_gb() -> None:
    for data in DATA:
        for algorithm in ALGORITHMS:
            config = Recipe(data, "qwen3-8b-4bit", algorithm).config
            assert max(peaks(config).values()) < 22  # 24 GiB less what the driver and the libraries hold
