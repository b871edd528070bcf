"""`align export`: what a run has trained, as a folder that other programs read."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import GenerationConfig
from transformers.utils import logging as transformers_logging

from pipeline.atomic import folder_atomically, write_atomically
from pipeline.config import Config, dump_config, parse_config
from pipeline.deploy import gguf
from pipeline.deploy.card import Licences, model_card
from pipeline.deploy.errors import DeployError
from pipeline.deploy.fidelity import Fidelity, Reference, compare, reference, require
from pipeline.lm.chat import CONTRACT, ChatFormat
from pipeline.lm.generate import give_back
from pipeline.lm.merging import merge, save, stored_dtype
from pipeline.lm.options import choose_device, choose_dtype, load_chat
from pipeline.lm.sources import resolve
from pipeline.progress import say
from pipeline.report.wording import local_paths_shortened
from pipeline.stages.inputs import load_backbone, open_run

Form = Literal["merged", "adapter", "gguf"]
Role = Literal["policy", "sft"]
MARK, RUN_CONFIG = "align_export.json", "align_run.yaml"
# What an adapter's folder holds for this project alone: a critic's head, the role, the template contract.
OURS = ("head.safetensors", "role.json", CONTRACT)


@dataclass(frozen=True)
class Exported:
    """A finished export."""

    folder: Path
    form: Form
    role: Role
    dtype: str
    fidelity: Fidelity | None  # None where nothing was computed anew, or nothing can read it back
    fresh: bool = True  # False: it was there already, and is of the same training

    @property
    def files(self) -> list[tuple[str, int]]:
        """Names and bytes, by name."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [(str(path.relative_to(self.folder)), path.stat().st_size) for path in paths]


def export(
    run_path: Path,
    form: Form,
    *,
    role: Role = "policy",
    out: Path | None = None,
    dtype: str = "auto",
    force: bool = False,
    reuse: bool = False,
    licences: Licences | None = None,
) -> Exported:
    """Write RUN/export/ROLE-FORM, or `out`: there whole or not at all, with a model card.

    A merged model and a GGUF file are read back and held against adapter on base over answers to held-out prompts.

    Args:
        dtype: auto (the base's own files'), float32, bfloat16, float16; for a GGUF file also q8_0.
        force: replace an earlier export.
        reuse: take an earlier export of the same training as it is.
        licences: what the card says of base and data.

    Raises:
        DeployError: `out` is taken, the copy isn't the trained model, or no GGUF converter is there.
        RunError, ModelError, DataError: run, base or held-out prompts can't be had.
    """
    if dtype == "q8_0" and form != "gguf":
        raise DeployError("--dtype q8_0 is for --to gguf; choose auto, float32, bfloat16 or float16")
    config, run_dir = open_run(run_path)
    result, adapter = run_dir.require(role), run_dir.artifact(role, role)
    folder = out or run_dir.path / "export" / f"{role}-{form}"
    mark = {"role": role, "form": form, "dtype": dtype, "fingerprint": result.fingerprint}
    earlier = read_mark(folder)
    card = partial(model_card, run_dir, form=form, role=role, licences=licences or Licences())
    if reuse and earlier is not None and earlier.items() >= mark.items():
        write_atomically(folder / "README.md", card(told=earlier))  # evaluated since then, or other licences
        found = earlier["fidelity"]
        return Exported(folder, form, role, earlier["stored"], Fidelity(**found) if found else None, fresh=False)
    _refuse_to_overwrite(folder, earlier, force)
    with folder_atomically(folder) as target, _quiet():
        stored, fidelity = _WRITERS[form](config, role, adapter, target, dtype)
        (target / RUN_CONFIG).write_text(portable(config), encoding="utf-8")
        told = mark | {"stored": stored, "fidelity": asdict(fidelity) if fidelity else None}
        (target / MARK).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        (target / "README.md").write_text(card(told=told), encoding="utf-8")
    return Exported(folder, form, role, stored, fidelity)


def read_mark(folder: Path) -> dict[str, Any] | None:
    """What an earlier export tells of itself; None where there is none."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / MARK).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None


def portable(config: Config) -> str:
    """The resolved config without what names places on this machine; absolute paths are cut to their last part."""
    tree = config.model_dump()
    tree["run_dir"], tree["model"]["cache_dir"] = None, ".cache/models"
    if tree["lora"] is not None:
        tree["lora"]["states_dir"] = None
    return dump_config(parse_config(local_paths_shortened(tree)))


def _refuse_to_overwrite(folder: Path, earlier: dict[str, Any] | None, force: bool) -> None:
    if not folder.exists():
        return
    if not force:
        raise DeployError(f"{folder} is there already; --force replaces it, --out FOLDER writes elsewhere")
    if earlier is None:
        raise DeployError(f"{folder} is no export, so --force leaves it alone; choose another --out")


def _adapter(config: Config, role: Role, adapter: Path, target: Path, dtype: str) -> tuple[str, None]:
    """An ordinary PEFT folder with the tokenizer; weights as they were trained."""
    if dtype != "auto":
        raise DeployError("--dtype changes nothing about an adapter, which is copied as it was trained; leave it out")
    if config.lora is None:
        raise DeployError("this run trained whole models (lora: null), there is no adapter; use --to merged")
    shutil.copytree(adapter, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*OURS))
    file = target / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    base = resolve(config.model.name, sha256=config.model.sha256, cache_dir=config.model.cache_dir)
    settings |= {
        "inference_mode": True,
        "base_model_name_or_path": str(Path(base).resolve()) if Path(base).is_dir() else base,
    }
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return "float32", None


def _merged(config: Config, role: Role, adapter: Path, target: Path, dtype: str) -> tuple[str, Fidelity]:
    """One transformers folder: weights, tokenizer with its template, how the run sampled."""
    from transformers import AutoModelForCausalLM

    told = _told_by_adapter(config, role, adapter)
    stored = _write_merged(config, adapter, target, dtype)
    model = AutoModelForCausalLM.from_pretrained(target, use_safetensors=True, dtype="auto").eval()
    fidelity = compare(told, model, visible=config.logging.progress)
    require(fidelity, "the merged model")
    return stored, fidelity


def _gguf(config: Config, role: Role, adapter: Path, target: Path, dtype: str) -> tuple[str, Fidelity | None]:
    """One GGUF file, made by llama.cpp's converter from a merged model in fp32."""
    converter = gguf.find_converter()
    told = _told_by_adapter(config, role, adapter)
    between = target / "merged"
    between.mkdir()
    _write_merged(config, adapter, between, "float32")
    file = target / f"{role}.gguf"
    say("converting to GGUF", visible=config.logging.progress)
    gguf.convert(converter, between, file, dtype)
    shutil.rmtree(between)
    model = gguf.read_back(file)
    if model is None:
        say(f"{file.name} couldn't be checked: transformers doesn't read this architecture's GGUF files")
        return dtype, None
    fidelity = compare(told, model, visible=config.logging.progress)
    require(fidelity, "the GGUF file's model")
    return dtype, fidelity


_WRITERS: dict[str, Callable[..., tuple[str, Fidelity | None]]] = {
    "merged": _merged,
    "adapter": _adapter,
    "gguf": _gguf,
}


def _told_by_adapter(config: Config, role: Role, adapter: Path) -> Reference:
    say("asking the trained model", visible=config.logging.progress)
    backbone = load_backbone(config)
    backbone.restore(role, adapter)
    told = reference(config, backbone, role)
    del backbone
    give_back()
    return told


def _write_merged(config: Config, adapter: Path, target: Path, dtype: str) -> str:
    """Weights, tokenizer and generation config into `target`; the dtype's name."""
    cfg = config.model
    source = resolve(cfg.name, sha256=cfg.sha256, cache_dir=cfg.cache_dir)
    trust = cfg.trust_remote_code
    stored = stored_dtype(source, trust_remote_code=trust) if dtype == "auto" else getattr(torch, dtype)
    device = choose_device(cfg.device)
    say("merging", visible=config.logging.progress)
    model = merge(
        source,
        adapter,
        dtype=stored,
        quantization=cfg.quantization,
        compute=choose_dtype(cfg.dtype, device),
        device=device if cfg.quantization != "none" else "cpu",
        trust_remote_code=trust,
    )
    chat = load_chat(source, template=cfg.chat_template, trust_remote_code=trust)
    model.generation_config = generation(config, chat)
    save(model, target)
    chat.tokenizer.save_pretrained(target)
    return str(stored).removeprefix("torch.")


def generation(config: Config, chat: ChatFormat) -> GenerationConfig:
    """How the run sampled: the pure softmax at its temperature, its stop tokens, its longest answer."""
    sampling = config.policy.sampling
    drawn = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(
        eos_token_id=list(chat.stop_ids),
        pad_token_id=chat.tokenizer.pad_token_id,
        bos_token_id=chat.tokenizer.bos_token_id,
        max_new_tokens=sampling.max_new_tokens,
        **(drawn if sampling.temperature > 0 else {"do_sample": False}),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own bars: loading is told in one line each."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
