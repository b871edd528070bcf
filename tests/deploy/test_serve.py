"""`align serve`: which server, on which command line, and a conversation with a real one."""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.deploy import serve
from pipeline.deploy.errors import DeployError
from pipeline.rundir import RunDir
from tests.deploy.builders import finished

Align = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> RunDir:
    return finished(tmp_path_factory.mktemp("served"), cache)


def after(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


# ---- command lines ------------------------------------------------------------------------------------------


def test_transformers_gets_a_merged_folder_and_no_network(run: RunDir) -> None:
    line = serve.command(run.path, "policy", "transformers", host="127.0.0.1", port=8123)
    assert line.arguments[:5] == [sys.executable, "-m", "transformers.cli.transformers", "serve", "policy"]
    assert line.folder == (run.path / "export" / "served").resolve()
    assert (after(line.arguments, "--host"), after(line.arguments, "--port")) == ("127.0.0.1", "8123")
    assert line.environment["HF_HUB_OFFLINE"] == "1"


def test_vllm_gets_the_adapter_on_the_base(run: RunDir, cache: Path) -> None:
    arguments = serve.command(run.path, "policy", "vllm", host="127.0.0.1", port=8123).arguments
    assert arguments[3:5] == ["serve", str(cache / "tiny-0")]
    assert "--enable-lora" in arguments
    name, _, folder = after(arguments, "--lora-modules").partition("=")
    assert (name, (Path(folder) / "adapter_model.safetensors").is_file()) == ("policy", True)
    assert Path(after(arguments, "--chat-template")).is_file()
    assert int(after(arguments, "--max-lora-rank")) >= 4
    assert json.loads(after(arguments, "--override-generation-config")) == {"temperature": 0.7, "max_new_tokens": 8}


def test_a_quantised_base_is_quantised_there_too(run: RunDir, tmp_path: Path, cache: Path) -> None:
    arguments = serve.command(run.path, "policy", "vllm", host="h", port=1).arguments
    assert "--quantization" not in arguments
    file = run.path / "config.yaml"
    before = file.read_text(encoding="utf-8")
    file.write_text(before.replace("quantization: none", "quantization: 4bit"), encoding="utf-8")
    try:
        arguments = serve.command(run.path, "policy", "vllm", host="h", port=1).arguments
    finally:
        file.write_text(before, encoding="utf-8")
    assert after(arguments, "--quantization") == "bitsandbytes"


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_nobody_is_told(run: RunDir, engine: Any) -> None:
    told = serve.command(run.path, "policy", engine, host="127.0.0.1", port=1).environment
    assert {"HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK", "DO_NOT_TRACK"} <= set(told)
    assert engine != "vllm" or told["VLLM_NO_USAGE_STATS"] == "1"


def test_print_shows_the_command_and_starts_nothing(
    run: RunDir, run_align: Align, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "start", lambda line: pytest.fail("started"))
    monkeypatch.setattr(serve, "prepare", lambda *_: pytest.fail("merged"))
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: name != "vllm")
    code, out, _ = run_align("serve", str(run.path), "--print", "--port", "8123")
    assert code == 0
    words = shlex.split(out)
    assert words[:3] == ["cd", str((run.path / "export" / "served").resolve()), "&&"]
    assert "HF_HUB_OFFLINE=1" in words
    assert after(words, "--host") == "127.0.0.1"


# ---- which server -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "asked", "chosen"),
    [
        ({"vllm", "fastapi", "uvicorn", "openai"}, "auto", "vllm"),
        ({"fastapi", "uvicorn", "openai"}, "auto", "transformers"),
        ({"vllm", "fastapi", "uvicorn", "openai"}, "transformers", "transformers"),
    ],
)
def test_the_best_that_is_installed(monkeypatch: pytest.MonkeyPatch, there: set[str], asked: str, chosen: str) -> None:
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: name in there or None)
    assert serve.choose_engine(asked) == chosen


@pytest.mark.parametrize(
    ("there", "asked", "says"),
    [
        (set(), "auto", r"align-pipeline\[serve\]"),
        ({"fastapi", "uvicorn"}, "auto", "no server is installed"),
        ({"fastapi", "uvicorn", "openai"}, "vllm", r"align-pipeline\[vllm\]"),
        ({"vllm"}, "transformers", r"align-pipeline\[serve\]"),
    ],
)
def test_what_is_not_installed_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, there: set[str], asked: str, says: str
) -> None:
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: name in there or None)
    with pytest.raises(DeployError, match=says):
        serve.choose_engine(asked)


def test_it_becomes_the_server(run: RunDir, run_align: Align, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged copy first, then this process is replaced, in the folder and with the environment that were shown."""
    started: list[Any] = []
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: name != "vllm")
    monkeypatch.setattr(os, "chdir", lambda folder: started.append(folder))
    monkeypatch.setattr(os, "execve", lambda *call: started.append(call))
    assert run_align("serve", str(run.path), "--role", "sft")[0] == 0
    folder, (program, arguments, environment) = started
    assert (folder / "sft" / "model.safetensors").is_file()
    assert (program, arguments[4], environment["DO_NOT_TRACK"]) == (sys.executable, "sft", "1")


# ---- a real one ---------------------------------------------------------------------------------------------


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.fixture
def port(run: RunDir) -> Iterator[int]:
    """What `align serve RUN` starts, ready for questions."""
    for need in serve.NEEDS["transformers"]:
        pytest.importorskip(need)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    serve.prepare(run.path, "policy", "transformers")
    line = serve.command(run.path, "policy", "transformers", host="127.0.0.1", port=free)
    environment = {**os.environ, **line.environment}
    server = subprocess.Popen(line.arguments, stderr=subprocess.PIPE, text=True, env=environment, cwd=line.folder)
    try:
        for _ in range(1200):  # a busy machine takes its time
            assert server.poll() is None, server.stderr.read() if server.stderr else ""
            try:
                ask(free, "/health")
                break
            except OSError:
                time.sleep(0.25)
        yield free
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_a_conversation_with_the_trained_model(run: RunDir, port: int) -> None:
    """The greedy answer over HTTP is the merged model's own."""
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "policy", "messages": messages, "temperature": 0, "max_tokens": 6}
    told = ask(port, "/v1/chat/completions", body)["choices"][0]["message"]["content"]
    folder = serve.merged_folder(run.path, "policy")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        said = model.generate(ids, do_sample=False, max_new_tokens=6)[0, ids.shape[1] :]
    assert told == tokenizer.decode(said, skip_special_tokens=True)
    assert told.strip()
