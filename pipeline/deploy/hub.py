"""Sending an export to the Hugging Face hub."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.utils import HFValidationError, validate_repo_id

from pipeline.deploy.card import on_hub
from pipeline.deploy.errors import DeployError


def check_repo(repo: str | None) -> str:
    """Raises DeployError where `repo` is no OWNER/NAME."""
    if repo is None or repo.count("/") != 1:
        raise DeployError(f"--to hub: give --repo OWNER/NAME{'' if repo is None else f', not {repo!r}'}")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise DeployError(f"--repo {repo!r}: {str(error).splitlines()[0]}") from None
    return repo


def check_adapter(base: str) -> None:
    """Raises DeployError where an adapter's base can't be found from the hub; its folder would name a place on this
    machine."""
    if not on_hub(base):
        raise DeployError(f"an adapter on the hub needs a base on the hub, and {base} isn't there; send --as merged")


def upload(folder: Path, repo: str, *, private: bool = True, api: Any = None) -> str:
    """Create the repository where there is none, and send the folder as one commit; returns its address.

    Raises:
        DeployError: no token, no network, not allowed, or a public repository where a private one was meant.
    """
    api = api or HfApi()
    if get_token() is None:
        raise DeployError("the hub wants to know who you are: run `hf auth login`, or set HF_TOKEN")
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise DeployError(f"{repo} is there already and public; give --public, or another --repo")
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Export from align-pipeline")
    except DeployError:
        raise
    # The hub's clients raise a dozen unrelated types, which change with their versions.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise DeployError(f"{repo}: the hub did not take it ({reason}); {folder} is complete, so try again") from None
    return str(done.commit_url)
