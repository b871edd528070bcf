"""GGUF files for llama.cpp and what is built on it, by llama.cpp's own converter: it knows every architecture and
tokenizer that the runtime knows, and one written here would be wrong about some of them in silence."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from pipeline.deploy.errors import DeployError

SCRIPT = "convert_hf_to_gguf.py"
TYPES = {"auto": "auto", "float32": "f32", "bfloat16": "bf16", "float16": "f16", "q8_0": "q8_0"}


def find_converter() -> Path:
    """llama.cpp's converter, in the folder that LLAMA_CPP names or on PATH.

    Raises:
        DeployError: it isn't there.
    """
    folder = os.environ.get("LLAMA_CPP")
    if folder and (script := Path(folder) / SCRIPT).is_file():
        return script
    if found := shutil.which(SCRIPT):
        return Path(found)
    where = f"LLAMA_CPP={folder} holds no {SCRIPT}" if folder else f"{SCRIPT} isn't on PATH"
    raise DeployError(
        f"{where}; get llama.cpp (git clone https://github.com/ggml-org/llama.cpp) and set LLAMA_CPP to its folder"
    )


def convert(converter: Path, merged: Path, file: Path, dtype: str) -> None:
    """Run the converter on a merged model's folder.

    Raises:
        DeployError: it failed, or wrote nothing; quotes its last line.
    """
    command = [sys.executable, str(converter), str(merged), "--outfile", str(file), "--outtype", TYPES[dtype]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not file.is_file():
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"exit code {done.returncode}"
        raise DeployError(f"{converter} could not convert the merged model: {reason}")


def read_back(file: Path) -> Any:
    """The file's weights as a transformers model in fp32; None where transformers doesn't know the architecture."""
    try:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except (ValueError, NotImplementedError):
        return None
    return model.eval()
