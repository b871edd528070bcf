"""Talk to base, SFT, DPO or policy in the terminal."""

from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pipeline.config import Config, ConfigError
from pipeline.lm.backbone import Backbone
from pipeline.lm.generate import generate
from pipeline.rundir import RunError
from pipeline.stages.inputs import load_backbone, open_run

ADAPTERS = {"base": None, "sft": "sft", "dpo": "dpo", "policy": "policy"}
HELP = "/base /sft /dpo /policy switch · /all asks all that are there · /new forgets the conversation · /quit leaves"


def converse(run_path: Path, model: str, temperature: float | None, max_new_tokens: int | None) -> None:
    """Read lines from standard input until /quit or end of file, answer each under the chosen adapter.

    Raises:
        RunError: no run there, or the stage that trains `model` isn't finished.
        ConfigError: `model` is none of base, sft, dpo, policy.
    """
    if model not in ADAPTERS:
        raise ConfigError(f"--model {model!r}: choose base, sft, dpo or policy")
    config, run_dir = open_run(run_path)
    backbone = load_backbone(config)
    available = ["base"]
    for name in ("sft", "dpo", "policy"):
        if run_dir.result(name) is not None:
            backbone.restore(name, run_dir.artifact(name, name))
            available.append(name)
    if model not in available:
        raise RunError(f"{run_path} has no finished {model} stage; there is {', '.join(available)}")
    _loop(Session(backbone, config, temperature, max_new_tokens), model, available)


class Session:
    """One conversation; every answer becomes part of it."""

    def __init__(
        self, backbone: Backbone, config: Config, temperature: float | None, max_new_tokens: int | None
    ) -> None:
        sampling = config.policy.sampling
        self._backbone = backbone
        self._temperature = sampling.temperature if temperature is None else temperature
        self._limit = max_new_tokens or max(128, sampling.max_new_tokens)
        self._generator = torch.Generator(backbone.device)
        self._generator.seed()
        self.messages: list[dict[str, str]] = []

    def answer(self, name: str) -> str:
        """The answer of `name` to the conversation so far."""
        prompt = self._backbone.chat.prompt_ids(self.messages)
        done = generate(
            self._backbone,
            ADAPTERS[name],
            [prompt],
            temperature=self._temperature,
            max_new_tokens=self._limit,
            generator=self._generator,
        )
        return self._backbone.chat.decode(done.ids(0))


def _loop(session: Session, model: str, available: list[str], console: Any = None) -> None:
    console = console or Console()
    console.print(HELP, style="dim", highlight=False)
    while True:
        try:
            line = console.input(f"[bold]{model}>[/bold] ").strip()
        except EOFError:
            return
        if line in ("/quit", "/exit"):
            return
        if line == "/new":
            session.messages.clear()
        elif line == "/all" or (line[1:] in available and line.startswith("/")):
            model = line[1:]
        elif line.startswith("/"):
            console.print(HELP, style="dim", highlight=False)
        elif line:
            session.messages.append({"role": "user", "content": line})
            for name in available if model == "all" else [model]:
                text = session.answer(name)
                console.print(f"[bold]{name}[/bold] ", end="")
                console.print(text or "(nothing)", markup=False, highlight=False)
            session.messages.append({"role": "assistant", "content": text})
