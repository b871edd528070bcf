"""The hub: nothing leaves without --yes, private unless said otherwise, refusals in one sentence."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.deploy import hub
from pipeline.deploy.errors import DeployError
from pipeline.rundir import RunDir
from tests.deploy.builders import finished

Align = Callable[..., tuple[int, str, str]]


class FakeHub:
    """HfApi's part that is used; notes what it was asked to do."""

    def __init__(self, *, private: bool | None = None, error: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.sent: set[str] = set()
        self._private, self._error = private, error

    def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.calls.append(f"create {repo} {'private' if private else 'public'}")
        self._private = private if self._private is None else self._private

    def repo_info(self, repo: str) -> Any:
        return SimpleNamespace(private=self._private)

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> Any:
        if self._error:
            raise self._error
        self.calls.append(f"upload {repo_id}")
        self.sent = {path.name for path in folder_path.iterdir()}
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> RunDir:
    return finished(tmp_path_factory.mktemp("hub"), cache)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    found = FakeHub()
    monkeypatch.setattr(hub, "HfApi", lambda: found)
    monkeypatch.setattr(hub, "get_token", lambda: "hf_x")
    return found


def test_nothing_is_sent_without_yes(run: RunDir, fake: FakeHub, run_align: Align) -> None:
    code, _, err = run_align("export", str(run.path), "--to", "hub", "--repo", "me/mine")
    assert code == 0
    assert "to me/mine, private" in err
    assert "model.safetensors" in err
    assert "nothing was sent" in err
    assert fake.calls == []


def test_yes_sends_what_was_shown(run: RunDir, fake: FakeHub, run_align: Align) -> None:
    arguments = ("export", str(run.path), "--to", "hub", "--repo", "me/mine", "--yes")
    code, out, err = run_align(*arguments)
    assert code == 0
    assert fake.calls == ["create me/mine private", "upload me/mine"]
    assert all(name in err for name in fake.sent)
    assert "README.md" in fake.sent
    assert "https://hub/me/mine/commit/1" in out
    run_align(*arguments, "--public")
    assert fake.calls[-2:] == ["create me/mine public", "upload me/mine"]


def test_a_public_repository_is_not_taken_for_a_private_one(tmp_path: Path, fake: FakeHub) -> None:
    fake._private = False
    with pytest.raises(DeployError, match="already and public"):
        hub.upload(tmp_path, "me/mine")
    assert "upload me/mine" not in fake.calls


def test_an_adapter_without_a_base_on_the_hub_stays_here(run: RunDir, fake: FakeHub, run_align: Align) -> None:
    arguments = ("export", str(run.path), "--to", "hub", "--as", "adapter", "--repo", "me/mine", "--yes")
    code, _, err = run_align(*arguments)
    assert code == 2
    assert "needs a base on the hub" in " ".join(err.split())
    assert fake.calls == []
    hub.check_adapter("HuggingFaceTB/SmolLM2-135M")


def test_what_is_sent_names_no_place_on_this_machine(run: RunDir, fake: FakeHub, run_align: Align) -> None:
    run_align("export", str(run.path), "--to", "hub", "--repo", "me/mine")
    for path in (run.path / "export" / "policy-merged").iterdir():
        assert path.suffix == ".safetensors" or str(run.path.parents[1]) not in path.read_text(encoding="utf-8"), path


def test_the_card_is_of_now_though_the_weights_are_there(run: RunDir, fake: FakeHub, run_align: Align) -> None:
    for licence in ("mit", "apache-2.0"):
        assert run_align("export", str(run.path), "--to", "hub", "--repo", "me/mine", "--license", licence)[0] == 0
        card = (run.path / "export" / "policy-merged" / "README.md").read_text(encoding="utf-8")
        assert f"license: {licence}\n" in card


def test_without_a_token_one_sentence(tmp_path: Path, fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "get_token", lambda: None)
    with pytest.raises(DeployError, match="HF_TOKEN"):
        hub.upload(tmp_path, "me/mine")
    assert fake.calls == []


def test_without_a_network_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client, offline as all tests are."""
    monkeypatch.setattr(hub, "get_token", lambda: "hf_x")
    with pytest.raises(DeployError, match=r"me/mine: the hub did not take it \(.+\); .+ is complete"):
        hub.upload(tmp_path, "me/mine")


@pytest.mark.parametrize("repo", [None, "mine", "a/b/c", "me/..", "me/a b"])
def test_a_repository_has_an_owner_and_a_name(repo: str | None) -> None:
    with pytest.raises(DeployError, match="--repo"):
        hub.check_repo(repo)


def test_options_of_the_hub_are_refused_elsewhere(run: RunDir, run_align: Align) -> None:
    code, _, err = run_align("export", str(run.path), "--to", "adapter", "--yes")
    assert code == 2
    assert "are for --to hub" in err
