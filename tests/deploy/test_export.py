"""`align export`: what other programs load is the model that was trained, or nothing is kept."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.config import load_config
from pipeline.deploy import export as exporting
from pipeline.deploy.errors import DeployError
from pipeline.deploy.export import export
from pipeline.lm.sources import resolve
from pipeline.rundir import RunDir, RunError
from tests.deploy.builders import finished
from tests.lm.builders import other_architecture, tiny

IDS = torch.tensor([[1, 40, 41, 42, 2, 50, 60]])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> RunDir:
    return finished(tmp_path_factory.mktemp("exported"), cache)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(input_ids=IDS).logits  # type: ignore[no-any-return]


def trained(run: RunDir, cache: Path, role: str = "policy") -> Tensor:
    """Logits of PEFT's adapter on transformers' base, none of our own forward pass."""
    base = AutoModelForCausalLM.from_pretrained(resolve("tiny", cache_dir=cache))
    return logits(PeftModel.from_pretrained(base, str(run.artifact(role, role))).eval())


@pytest.mark.parametrize("role", ["policy", "sft"])
def test_a_merged_folder_is_the_trained_model(run: RunDir, cache: Path, tmp_path: Path, role: Any) -> None:
    done = export(run.path, "merged", role=role, out=tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(done.folder)
    torch.testing.assert_close(logits(model), trained(run, cache, role), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(model), trained(run, cache, {"policy": "sft", "sft": "policy"}[role]), atol=0.1)
    assert done.fidelity is not None
    assert done.fidelity.mean < 1e-5 < 0.1 < done.fidelity.adapter_effect
    assert done.fidelity.mean <= done.fidelity.max < 1e-4
    assert done.fidelity.prompts == 6


def test_it_speaks_as_the_run_did(run: RunDir, cache: Path, tmp_path: Path) -> None:
    folder = export(run.path, "merged", out=tmp_path / "out").folder
    ours, tokenizer = tiny(cache).chat, AutoTokenizer.from_pretrained(folder)
    message = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"] == ours.prompt_ids(message)
    sampling = AutoModelForCausalLM.from_pretrained(folder).generation_config
    assert (sampling.temperature, sampling.max_new_tokens, sampling.top_k) == (0.7, 8, 0)
    assert sampling.eos_token_id == list(ours.stop_ids)


def test_an_adapter_folder_is_pefts_and_knows_its_base(run: RunDir, cache: Path, tmp_path: Path) -> None:
    folder = export(run.path, "adapter", out=tmp_path / "out").folder
    model = AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(logits(model), trained(run, cache))
    assert not {"role.json", "head.safetensors", "chat_contract.json"} & {path.name for path in folder.iterdir()}


def test_the_config_beside_it_names_no_place_on_this_machine(run: RunDir, cache: Path, tmp_path: Path) -> None:
    folder = export(run.path, "adapter", out=tmp_path / "out").folder
    text = (folder / "align_run.yaml").read_text(encoding="utf-8")
    assert str(cache) not in text
    assert str(run.path.parent) not in text
    assert load_config(folder / "align_run.yaml").policy.sampling.temperature == 0.7


# ---- merges that would be wrong -----------------------------------------------------------------------------


def no_adapter(source: str, adapter: Path, **_: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(source)


def twice(source: str, adapter: Path, **_: Any) -> Any:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), str(adapter))
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.scaling = {name: 2 * scale for name, scale in module.scaling.items()}
    return model.merge_and_unload()


@pytest.mark.parametrize("wrong", [no_adapter, twice])
def test_a_wrong_merge_is_refused_and_leaves_nothing(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    monkeypatch.setattr(exporting, "merge", wrong)
    with pytest.raises(DeployError, match="isn't the trained model"):
        export(run.path, "merged", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_rounding_that_loses_the_adapter_is_refused(cache: Path, tmp_path: Path) -> None:
    """A small change of fp32 weights is gone in bf16; a large one isn't."""
    small, large = (finished(tmp_path / str(std), cache, std=std) for std in (0.02, 0.5))
    with pytest.raises(DeployError, match="wider --dtype"):
        export(small.path, "merged", dtype="bfloat16")
    done = export(large.path, "merged", dtype="bfloat16")
    assert AutoModelForCausalLM.from_pretrained(done.folder).dtype == torch.bfloat16
    assert done.fidelity is not None
    assert done.fidelity.mean > 1e-3
    assert export(small.path, "merged").fidelity.mean < 1e-5  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_a_quantised_base_is_merged_as_it_was_trained_on(cache: Path, tmp_path: Path, kind: str) -> None:
    """The copy is the dequantised base with the adapter: nearer to what was trained than the unquantised base is."""
    from transformers import LlamaConfig

    from tests.lm.builders import SIZES

    sizes = SIZES | {"hidden_size": 64, "intermediate_size": 128}
    base = other_architecture(tmp_path / "base", cache, LlamaConfig(**sizes), spread=2.0)
    try:
        run = finished(tmp_path, cache, name=str(base), quantization=kind)
    except (ImportError, NotImplementedError) as error:
        pytest.skip(f"bitsandbytes can't do {kind} here: {error}")
    done = export(run.path, "merged")
    assert done.fidelity is not None
    plain = AutoModelForCausalLM.from_pretrained(done.folder)
    assert getattr(plain.config, "quantization_config", None) is None
    assert plain.dtype == torch.float32
    text = (run.path / "config.yaml").read_text(encoding="utf-8")
    (run.path / "config.yaml").write_text(text.replace(f"quantization: {kind}", "quantization: none"))
    unquantised = export(run.path, "merged", out=tmp_path / "unquantised").folder
    ours, theirs = (logits(AutoModelForCausalLM.from_pretrained(one)) for one in (done.folder, unquantised))
    assert not torch.allclose(ours, theirs, atol=1e-2)


# ---- places -------------------------------------------------------------------------------------------------


def test_what_is_there_stays_unless_forced(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = export(run.path, "adapter", out=out)
    before = (out / "align_export.json").stat().st_mtime_ns
    with pytest.raises(DeployError, match="--force"):
        export(run.path, "adapter", out=out)
    assert not export(run.path, "adapter", out=out, reuse=True).fresh
    assert (out / "align_export.json").stat().st_mtime_ns == before
    assert first.fresh
    assert export(run.path, "adapter", role="sft", out=out, force=True).fresh
    assert json.loads((out / "align_export.json").read_text())["role"] == "sft"


def test_what_is_of_another_training_is_not_reused(run: RunDir, tmp_path: Path) -> None:
    copy = RunDir(shutil.copytree(run.path, tmp_path / "copy"))
    export(copy.path, "adapter")
    result = copy.path / "policy" / "result.json"
    result.write_text(result.read_text(encoding="utf-8").replace("mark-policy", "trained-again"), encoding="utf-8")
    with pytest.raises(DeployError, match="--force"):
        export(copy.path, "adapter", reuse=True)
    assert export(copy.path, "adapter", reuse=True, force=True).fresh


def test_force_leaves_alone_what_is_no_export(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("you")
    with pytest.raises(DeployError, match="no export"):
        export(run.path, "adapter", out=tmp_path / "letters", force=True)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "you"


def test_a_failed_replacement_keeps_the_old_one(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(run.path, "merged", out=tmp_path / "out")
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    monkeypatch.setattr(exporting, "merge", no_adapter)
    with pytest.raises(DeployError):
        export(run.path, "merged", out=tmp_path / "out", force=True)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("form", "options", "says"),
    [
        ("merged", {"dtype": "q8_0"}, "--to gguf"),
        ("adapter", {"dtype": "float32"}, "leave it out"),
    ],
)
def test_options_that_mean_nothing_are_refused(run: RunDir, tmp_path: Path, form: Any, options: Any, says: str) -> None:
    with pytest.raises(DeployError, match=says):
        export(run.path, form, out=tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_is_not_finished_is_named(run: RunDir, tmp_path: Path) -> None:
    copy = RunDir(shutil.copytree(run.path, tmp_path / "copy"))
    (copy.path / "policy" / "result.json").unlink()
    with pytest.raises(RunError, match="no finished policy"):
        export(copy.path, "merged")
