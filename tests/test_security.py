"""Nothing is unpickled, nobody's code runs unasked, nothing phones home."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.lm.sources import ModelError, resolve
from tests.lm.builders import noisy, tiny

PACKAGE = Path(__file__).parents[1] / "pipeline"
UNPICKLE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_no_module_can_unpickle() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not UNPICKLE & {name.name.partition(".")[0] for name in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in UNPICKLE, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert node.attr != "load", path


def test_a_model_that_comes_as_a_pickle_is_refused_and_not_opened(cache: Path, tmp_path: Path) -> None:
    folder, trace = tmp_path / "model", tmp_path / "opened"
    shutil.copytree(resolve("tiny", cache_dir=cache), folder)
    (folder / "model.safetensors").unlink()
    torch.save({"bomb": Bomb(trace)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        tiny(cache, name=str(folder))
    assert not trace.exists()


def test_an_adapter_that_comes_as_a_pickle_is_not_opened(cache: Path, tmp_path: Path) -> None:
    folder, trace = tmp_path / "adapter", tmp_path / "opened"
    noisy(tiny(cache), "sft").save("sft", folder)
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"bomb": Bomb(trace)}, folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="safetensors alone"):
        tiny(cache).restore("sft", folder)
    assert not trace.exists()


def test_a_repositorys_code_does_not_run_unasked(cache: Path, tmp_path: Path) -> None:
    folder, trace = tmp_path / "model", tmp_path / "ran"
    AutoModelForCausalLM.from_pretrained(resolve("tiny", cache_dir=cache)).save_pretrained(folder)
    shutil.copytree(resolve("tiny", cache_dir=cache), folder, dirs_exist_ok=True)
    (folder / "theirs.py").write_text(
        f"from pathlib import Path\nPath({str(trace)!r}).touch()\nclass M: ...\nclass C: ...\n"
    )
    config = (folder / "config.json").read_text(encoding="utf-8")
    auto = '"auto_map": {"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"}, "model_type": "theirs",'
    config = config.replace('"model_type": "llama",', auto)
    assert "auto_map" in config
    (folder / "config.json").write_text(config, encoding="utf-8")
    with pytest.raises((ModelError, ValueError)):
        tiny(cache, name=str(folder))
    assert not trace.exists()


def test_telemetry_is_off_unless_the_user_says_otherwise() -> None:
    show = "import os, pipeline; print(*(os.environ.get(n) for n in ('HF_HUB_DISABLE_TELEMETRY', 'DO_NOT_TRACK')))"
    clean = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name and name != "DO_NOT_TRACK"}
    for extra, expected in (({}, "1 1"), ({"DO_NOT_TRACK": "0"}, "1 0")):
        done = subprocess.run(
            [sys.executable, "-c", show], env=clean | extra, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
