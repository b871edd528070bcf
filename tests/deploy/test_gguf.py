"""GGUF: llama.cpp's converter is found, called as it wants to be, and its file held against the trained model."""

import shutil
from pathlib import Path

import pytest

from pipeline.deploy.errors import DeployError
from pipeline.deploy.export import export
from pipeline.rundir import RunDir
from tests.deploy.builders import finished


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> RunDir:
    return finished(tmp_path_factory.mktemp("gguf"), cache)


@pytest.fixture
def llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("stand_in_converter.py"), folder / "convert_hf_to_gguf.py")
    monkeypatch.setenv("LLAMA_CPP", str(folder))
    return folder


def test_without_a_converter_one_sentence_says_where_to_get_it(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    with pytest.raises(DeployError, match="git clone"):
        export(run.path, "gguf", out=tmp_path / "out")
    monkeypatch.setenv("LLAMA_CPP", "/nowhere")
    with pytest.raises(DeployError, match="LLAMA_CPP=/nowhere"):
        export(run.path, "gguf", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_converter_on_path_is_found(run: RunDir, llama_cpp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.deploy.gguf import find_converter

    monkeypatch.delenv("LLAMA_CPP")
    (llama_cpp / "convert_hf_to_gguf.py").chmod(0o755)
    monkeypatch.setenv("PATH", str(llama_cpp))
    assert find_converter() == llama_cpp / "convert_hf_to_gguf.py"


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("float16", 1e-2)])
def test_the_files_model_is_the_trained_one(
    run: RunDir, tmp_path: Path, llama_cpp: Path, dtype: str, error: float
) -> None:
    done = export(run.path, "gguf", dtype=dtype, out=tmp_path / "out")
    assert done.fidelity is not None
    assert done.fidelity.mean < error < done.fidelity.adapter_effect
    assert {name for name, _ in done.files} == {"README.md", "align_export.json", "align_run.yaml", "policy.gguf"}


def test_a_wrong_file_is_refused(run: RunDir, tmp_path: Path, llama_cpp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRONG", "1")
    with pytest.raises(DeployError, match="GGUF file's model isn't the trained model"):
        export(run.path, "gguf", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_the_converter_says_is_passed_on(
    run: RunDir, tmp_path: Path, llama_cpp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(DeployError, match="Architecture 'Nobody' not supported"):
        export(run.path, "gguf", out=tmp_path / "out")
