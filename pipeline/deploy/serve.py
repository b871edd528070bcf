"""`align serve`: the command line of a server that is installed, for one of a run's models."""

import importlib.util
import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from pipeline.config import Config
from pipeline.deploy.errors import DeployError
from pipeline.deploy.export import Role, export
from pipeline.lm.sources import resolve
from pipeline.lm.vllm_sampler import RANKS
from pipeline.progress import say
from pipeline.stages.inputs import open_run

Engine = Literal["vllm", "transformers"]
QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "DO_NOT_TRACK": "1"}
NEEDS = {"vllm": ("vllm",), "transformers": ("fastapi", "uvicorn", "openai")}


@dataclass(frozen=True)
class Command:
    """What starts a server, what its environment needs besides this one's, and where it starts."""

    arguments: list[str]
    environment: Mapping[str, str]
    folder: Path | None = None

    def __str__(self) -> str:
        """As one would type it."""
        words = [*(f"{name}={value}" for name, value in self.environment.items()), *self.arguments]
        return (f"cd {shlex.quote(str(self.folder))} && " if self.folder else "") + shlex.join(words)


def choose_engine(engine: str) -> Engine:
    """vLLM where it is installed, else transformers' own server; or what the user names.

    Raises:
        DeployError: it isn't installed.
    """
    there = {name: all(importlib.util.find_spec(one) for one in needs) for name, needs in NEEDS.items()}
    for name in NEEDS if engine == "auto" else (engine,):
        if there[name]:
            return name  # type: ignore[return-value]
    if engine == "auto":
        raise DeployError(
            "no server is installed; pip install 'align-pipeline[serve]' (transformers' own), or 'align-pipeline[vllm]'"
        )
    extra = "vllm" if engine == "vllm" else "serve"
    raise DeployError(f"--engine {engine} isn't installed; pip install 'align-pipeline[{extra}]'")


def prepare(run_path: Path, role: Role, engine: Engine) -> None:
    """The merged copy that `transformers serve` reads, unless an up-to-date one is there. Raises as `export`."""
    if engine == "transformers":
        done = export(run_path, "merged", role=role, out=merged_folder(run_path, role), force=True, reuse=True)
        if done.fresh:
            say(f"merged copy: {done.folder}")


def merged_folder(run_path: Path, role: Role) -> Path:
    """Where the copy lies: of its own, so that no export that the user made is replaced."""
    return run_path / "export" / "served" / role


def command(run_path: Path, role: Role, engine: Engine, *, host: str, port: int) -> Command:
    """The server's command line.

    Raises:
        RunError: no such run, or its stage isn't finished.
    """
    config, run_dir = open_run(run_path)
    adapter = run_dir.artifact(role, role)
    if engine == "vllm":
        return _vllm(config, role, adapter, host, port)
    folder = merged_folder(run_path, role).resolve()
    # Requests must name the model as it is named here: by its role, as with vLLM, seen from the folder above.
    arguments = [sys.executable, "-m", "transformers.cli.transformers", "serve", folder.name]
    arguments += ["--host", host, "--port", str(port), "--device", config.model.device]
    # The model is a folder here: nothing has to be fetched, whatever model a request names.
    return Command(arguments, QUIET | {"HF_HUB_OFFLINE": "1"}, folder.parent)


def _vllm(config: Config, role: Role, adapter: Path, host: str, port: int) -> Command:
    cfg, sampling = config.model, config.policy.sampling
    if config.lora is None:  # a whole model
        base, named = str(adapter.resolve()), ["--served-model-name", role]
    else:
        base, named = resolve(cfg.name, sha256=cfg.sha256, cache_dir=cfg.cache_dir), _lora(config.lora.r, role, adapter)
    drawn = {"temperature": sampling.temperature, "max_new_tokens": sampling.max_new_tokens}
    arguments = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", base, "--host", host, "--port", str(port)]
    arguments += named
    arguments += ["--chat-template", str((adapter / "chat_template.jinja").resolve())]
    # The pure softmax that the run sampled from, not the base's own top-k or top-p.
    arguments += ["--generation-config", "vllm", "--override-generation-config", json.dumps(drawn)]
    if cfg.dtype != "auto":
        arguments += ["--dtype", cfg.dtype]
    if cfg.quantization != "none":
        arguments += ["--quantization", "bitsandbytes"]
    if cfg.trust_remote_code:
        arguments.append("--trust-remote-code")
    return Command(arguments, QUIET | {"VLLM_NO_USAGE_STATS": "1"})


def _lora(rank: int, role: Role, adapter: Path) -> list[str]:
    """What tells vLLM to put an adapter on the base."""
    if (room := next((one for one in RANKS if one >= rank), None)) is None:
        raise DeployError(f"vLLM takes adapters up to rank {RANKS[-1]}, this run's has {rank}; export a merged one")
    return ["--enable-lora", "--lora-modules", f"{role}={adapter.resolve()}", "--max-lora-rank", str(room)]


def start(line: Command) -> NoReturn:
    """Become the server: its signals and its exit code are then this process's."""
    sys.stdout.flush()
    sys.stderr.flush()
    if line.folder is not None:
        os.chdir(line.folder)
    os.execve(line.arguments[0], line.arguments, {**os.environ, **line.environment})
