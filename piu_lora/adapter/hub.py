"""Adapters on the Hugging Face Hub: fetched with their digests checked, pushed so that repeating it changes nothing."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

from piu_lora.adapter.folder import RECEIPT_FILE, file_digest
from piu_lora.adapter.receipt import Receipt
from piu_lora.errors import BadInput, EnvironmentProblem, PiuLoraError
from piu_lora.model.hub import HubFiles, http_status, token_present

__all__ = ["Uploaded", "fetch_adapter", "upload_adapter"]

_log = logging.getLogger("piu_lora")
_PAUSES = (1.0, 4.0)  # seconds between the attempts of a commit, which the client itself does not repeat
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Uploaded:
    """Where an adapter lies on the Hub; ``changed`` is False when the same files were there already."""

    url: str
    commit: str
    changed: bool


def fetch_adapter(name: str) -> Path:
    """Download the adapter ``user/name[@revision]`` into the Hub's cache; what is there already is not downloaded again.

    Returns:
        A folder with all files that the receipt lists, apart from reports that were not published.

    Raises:
        BadInput: the repository holds no adapter.
        EnvironmentProblem: it cannot be had, or a file arrived damaged; a damaged file is not kept.
    """
    repository, _, revision = name.partition("@")
    tip = HubFiles(repository, revision or None)
    receipt_path = tip.find(RECEIPT_FILE)
    if receipt_path is None:
        raise BadInput(f"the repository {name!r} holds no adapter: it has no {RECEIPT_FILE}; pass one that `piu-lora push` made")
    folder = receipt_path.parent
    # All other files from the very same commit, though the branch may move meanwhile.
    files = HubFiles(repository, folder.name)
    receipt = Receipt.from_json(receipt_path.read_text(), f"{RECEIPT_FILE} of {name!r}")
    for file, digest in receipt.files.items():
        path = files.find(file)
        if path is not None and file_digest(path) != digest:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise EnvironmentProblem(
                f"{file} of {name!r} is not what its receipt says and was deleted; {files.repair(file)}, or pull again"
            )
    return folder


def upload_adapter(folder: Path, files: Sequence[str], repository: str, *, public: bool, message: str) -> Uploaded:
    """Create the repository where it is missing, and commit the files; unchanged ones are not sent, and make no commit.

    A failed commit is tried twice more; large files that arrived are not sent again, also not by a later call.

    Args:
        files: names relative to ``folder``.
        public: visibility of a new repository. That of an existing one is never changed.

    Raises:
        BadInput: no name for a repository, or one of the other visibility exists.
        EnvironmentProblem: no token, no permission, no network, the Hub fails.
    """
    if not token_present():
        raise EnvironmentProblem("no Hub token is stored, and pushing needs one with write access: run `hf auth login`")
    api = HfApi()
    before = _asked(repository, lambda: _repository(api, repository, public=public))
    uploaded = _asked(
        repository,
        lambda: api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(files), commit_message=message),
        _PAUSES,
    )
    return Uploaded(f"{api.endpoint}/{repository}", uploaded.oid, uploaded.oid != before)


def _repository(api: HfApi, repository: str, *, public: bool) -> str:
    """The commit at the tip of the repository, which is created where it is missing."""
    try:
        info = api.model_info(repository)
    except RepositoryNotFoundError:
        # exist_ok: somebody may be creating it at the same time.
        api.create_repo(repository, private=not public, exist_ok=True)
        info = api.model_info(repository)
    if bool(info.private) == public:
        now, wanted = ("private", "public") if info.private else ("public", "private")
        advice = "leave --public out" if info.private else "pass --public to push there all the same"
        raise BadInput(f"the repository {repository!r} exists and is {now}, not {wanted}; {advice}, or choose another name")
    return info.sha or ""


def _asked(repository: str, ask: Callable[[], _Result], pauses: Sequence[float] = ()) -> _Result:
    for pause in (*pauses, None):
        try:
            return ask()
        except PiuLoraError:
            raise
        except Exception as error:  # the client lets its transport's own errors through
            if pause is None or not _passing(error):
                raise _explained(repository, error) from error
            _log.warning("the Hub fails (%s); trying again", http_status(error) or "no answer")
            _pause(pause)
    raise AssertionError  # pragma: no cover


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _passing(error: Exception) -> bool:
    """Whether it may go away by itself: the server's errors, a commit by somebody else, a broken connection."""
    status = http_status(error)
    return status in (409, 412, 429) or (status is None and not isinstance(error, ValueError)) or (status or 0) >= 500


def _explained(repository: str, error: Exception) -> PiuLoraError:
    status = http_status(error)
    if isinstance(error, HFValidationError):
        return BadInput(f"{repository!r} is no name of a repository; write it as USER/NAME")
    if status == 401:
        return EnvironmentProblem("the Hub refuses your token: run `hf auth login`, or set HF_TOKEN to one with write access")
    if status == 403:
        return EnvironmentProblem(f"your token may not write to {repository!r}: use one with write access there (`hf auth login`)")
    if status == 404:
        return EnvironmentProblem(f"the Hub knows no {repository!r} that you may write to; check the name and `hf auth whoami`")
    if status in (409, 412):
        return EnvironmentProblem(f"somebody else is writing to {repository!r}; run the same command again")
    if status is not None:
        return EnvironmentProblem(f"the Hub answers {status} for {repository!r}; run the same command again later, what arrived is kept")
    return EnvironmentProblem(f"{repository!r} could not be reached ({type(error).__name__}); check the network and run it again")
