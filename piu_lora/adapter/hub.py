"""Adapters on the Hugging Face Hub: fetched with their digests checked, pushed so that repeating it changes
nothing.
"""

import hashlib
import logging
import re
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from piu_lora.adapter.folder import RECEIPT_FILE, file_digest
from piu_lora.adapter.receipt import Receipt
from piu_lora.errors import BadInput, EnvironmentProblem, PiuLoraError
from piu_lora.model.hub import HubFiles, http_status, token_present

__all__ = ["Uploaded", "fetch_adapter", "upload_adapter"]

_log = logging.getLogger("piu_lora")
_PAUSES = (1.0, 4.0)  # seconds between the attempts of what the client itself does not repeat
_NAME = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*(@[\w./-]+)?")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Uploaded:
    """Where an adapter lies on the Hub; ``changed`` is False when the same files were there already."""

    url: str
    commit: str
    changed: bool


def fetch_adapter(name: str) -> Path:
    """Download the adapter ``user/name[@revision]`` into the Hub's cache; what is there already is not
    downloaded again.

    Returns:
        A folder with all files that the receipt lists, apart from reports that were not published.

    Raises:
        BadInput: no name of a repository, or it holds no adapter.
        EnvironmentProblem: it cannot be had, or a file arrived damaged; a damaged file is not kept.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{name!r} is no name of an adapter on the Hub; write it as USER/NAME or USER/NAME@REVISION"
        )
    try:
        return _fetch(name)
    except PiuLoraError as error:
        error.__cause__ = _shown(error.__cause__)
        error.__suppress_context__ = True
        raise


def _fetch(name: str) -> Path:
    repository, _, revision = name.partition("@")
    receipt_path = HubFiles(repository, revision or None).find(RECEIPT_FILE)
    if receipt_path is None:
        raise BadInput(
            f"the repository {name!r} holds no adapter: it has no {RECEIPT_FILE}; pass one that `piu-lora push` made"
        )
    folder = receipt_path.parent
    # All other files from the very same commit, though the branch may move meanwhile.
    files = HubFiles(repository, folder.name)
    for file, digest in _receipt(receipt_path, name).files.items():
        if not _is_inside(file):
            raise BadInput(
                f"the receipt of {name!r} lists {file[:80]!r}, which is no file of its folder; do not use this adapter"
            )
        path = files.find(file)
        if path is not None and file_digest(path) != digest:
            # Either of the two may be the damaged one.
            _forget_download(path)
            _forget_download(receipt_path)
            raise EnvironmentProblem(
                f"{file} of {name!r} is not what its receipt says and was deleted; {files.repair(file)}, or pull again"
            )
    return folder


def _receipt(path: Path, name: str) -> Receipt:
    """The receipt; nothing in it would tell that it arrived damaged, so the name of its blob, a SHA-1, must."""
    content, announced = path.read_bytes(), path.resolve().name
    if re.fullmatch("[0-9a-f]{40}", announced) and announced not in (
        _git_id(content),
        hashlib.sha1(content).hexdigest(),
    ):
        _forget_download(path)
        raise EnvironmentProblem(f"{RECEIPT_FILE} of {name!r} arrived damaged and was deleted; pull again")
    try:
        return Receipt.from_json(content.decode(), f"{RECEIPT_FILE} of {name!r}")
    except UnicodeDecodeError as error:
        raise BadInput(f"{RECEIPT_FILE} of {name!r} is no text: the repository holds no adapter") from error


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _forget_download(path: Path) -> None:
    """Delete a file from the Hub's cache, so that it is downloaded again."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _is_inside(name: str) -> bool:
    """Whether a name from a receipt that may come from anybody stays below the folder, on every system."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    strange = (
        not name or "\0" in name or ".." in windows.parts or any(len(part) > 200 for part in posix.parts)
    )
    return not (strange or posix.is_absolute() or windows.drive or windows.root)


def upload_adapter(
    folder: Path, files: Sequence[str], repository: str, *, public: bool, message: str
) -> Uploaded:
    """Create the repository where it is missing, and commit the files; unchanged ones are not sent, and make
    no commit.

    What failed is tried twice more; large files that arrived are not sent again, also not by a later call.

    Args:
        files: names relative to ``folder``.
        public: visibility of a new repository. That of an existing one is never changed.

    Raises:
        BadInput: no name for a repository, or one of the other visibility exists.
        EnvironmentProblem: no token, no permission, no network, the Hub fails.
    """
    if not _NAME.fullmatch(repository) or "@" in repository or "/" not in repository:
        raise BadInput(f"{repository!r} is no name of a repository; write it as USER/NAME")
    if not token_present():
        raise EnvironmentProblem(
            "no Hub token is stored, and pushing needs one with write access: run `hf auth login`"
        )
    if not (get_token() or "").isprintable() or not (get_token() or "").isascii():
        raise EnvironmentProblem(
            "the Hub token holds characters that no token has: run `hf auth login`, or set HF_TOKEN again"
        )
    api = HfApi()
    before = _asked(repository, lambda: _repository(api, repository, public=public))
    uploaded = _asked(
        repository, lambda: api.create_commit(repository, _additions(folder, files), commit_message=message)
    )
    return Uploaded(f"{api.endpoint}/{repository}", uploaded.oid, uploaded.oid != before)


def _additions(folder: Path, files: Sequence[str]) -> list[CommitOperationAdd]:
    """Anew for every attempt: the client marks in them what it has done."""
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise BadInput(
            f"{str(folder / missing[0])!r} is no longer there; push again when the folder is complete"
        )
    return [CommitOperationAdd(name, folder / name) for name in files]


def _repository(api: HfApi, repository: str, *, public: bool) -> str:
    """The commit at the tip of the repository, which is created where it is missing."""
    try:
        info = api.model_info(repository)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        # exist_ok: somebody may be creating it at the same time.
        api.create_repo(repository, private=not public, exist_ok=True)
        info = api.model_info(repository)
    if bool(info.private) == public:
        now, wanted = ("private", "public") if info.private else ("public", "private")
        advice = "leave public=True out" if info.private else "pass public=True to push there all the same"
        raise BadInput(
            f"the repository {repository!r} exists and is {now}, not {wanted}; {advice}, or choose another name"
        )
    return info.sha or ""


def _asked(repository: str, ask: Callable[[], _Result]) -> _Result:
    for pause in (*_PAUSES, None):
        try:
            return ask()
        except PiuLoraError:
            raise
        except Exception as error:  # the client lets its transport's own errors through
            if pause is None or not _passing(error):
                raise _explained(repository, error) from _shown(error)
            _log.warning("the Hub fails (%s); trying again", http_status(error) or "no answer")
            _pause(pause)
    raise AssertionError  # pragma: no cover


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _shown(error: BaseException | None) -> BaseException | None:
    """The error as the cause of ours; None where its traceback would show the token, as that of a Hub that
    echoes it.
    """
    token = get_token()
    if error is None or not token:
        return error
    return None if token in "".join(traceback.format_exception(error)) else error


def _passing(error: Exception) -> bool:
    """Whether it may go away by itself: the server's errors, a commit by somebody else, a broken connection."""
    status = http_status(error)
    if status is not None:
        return status in (408, 409, 412, 429) or status >= 500
    return not isinstance(error, ValueError | TypeError | PermissionError | OfflineModeIsEnabled)


def _explained(repository: str, error: Exception) -> PiuLoraError:
    status = http_status(error)
    if isinstance(error, HFValidationError):
        return BadInput(f"{repository!r} is no name of a repository; write it as USER/NAME")
    if isinstance(error, OfflineModeIsEnabled):
        return EnvironmentProblem(
            f"nothing can be pushed to {repository!r} while HF_HUB_OFFLINE is set; unset it"
        )
    if isinstance(error, PermissionError) and error.filename:
        return BadInput(f"{str(error.filename)!r} cannot be read; mend its permissions and push again")
    if status == 401:
        advice = "run `hf auth login`, or set HF_TOKEN to one with write access"
        return EnvironmentProblem(f"the Hub refuses your token for {repository!r}: {advice}")
    if status == 403:
        return EnvironmentProblem(
            f"your token may not write to {repository!r}: use one with write access there (`hf auth login`)"
        )
    if status == 404:
        return EnvironmentProblem(
            f"the Hub knows no {repository!r} that you may write to; check the name and `hf auth whoami`"
        )
    # The client reads the address of the repository from the answer to a conflict, and fails where there is
    # none.
    if status in (409, 412) or isinstance(error, KeyError):
        return EnvironmentProblem(f"somebody else is writing to {repository!r}; run the same command again")
    if status is not None:
        return EnvironmentProblem(
            f"the Hub answers {status} for {repository!r}; run the same command again later, what arrived is kept"
        )
    return EnvironmentProblem(
        f"{repository!r} could not be reached ({type(error).__name__}); check the network and run it again"
    )
