"""Files to a repository on the Hub, so that sending the same files again changes nothing."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from piu_lora.errors import BadInput, EnvironmentProblem, PiuLoraError
from piu_lora.hub.cache import token_present
from piu_lora.hub.errors import http_status, may_pass, upload_error, without_token

__all__ = ["Uploaded", "tag_commit", "upload_files"]

_log = logging.getLogger("piu_lora")
_PAUSES = (1.0, 4.0)  # seconds between the attempts of what the client itself does not repeat
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Uploaded:
    """Where the files lie on the Hub; ``changed`` is False when the same files were there already."""

    url: str
    commit: str
    changed: bool


def upload_files(
    folder: Path, files: Sequence[str], repository: str, *, public: bool, message: str
) -> Uploaded:
    """Create the repository where it is missing, and commit the files.

    Unchanged files are not sent, and make no commit. What failed is tried twice more; large files that
    arrived are not sent again, also not by a later call.

    Args:
        files: names relative to ``folder``.
        repository: ``user/name``.
        public: visibility of a new repository. That of an existing one is never changed.
        message: of the commit.

    Raises:
        BadInput: no name for a repository, or one of the other visibility exists.
        EnvironmentProblem: no token, no permission, no network, the Hub fails.
    """
    if not _NAME.fullmatch(repository):
        raise BadInput(f"{repository!r} is no name of a repository; write it as USER/NAME")
    _require_token()
    api = HfApi()
    before = _patiently(repository, lambda: _tip(api, repository, public=public))
    commit = _patiently(
        repository, lambda: api.create_commit(repository, _additions(folder, files), commit_message=message)
    )
    return Uploaded(f"{api.endpoint}/{repository}", commit.oid, commit.oid != before)


def tag_commit(repository: str, tag: str, commit: str) -> None:
    """Give a commit a name that ``user/name@tag`` asks for; one that is there already stays as it is.

    Raises:
        EnvironmentProblem: no permission, no network, the Hub fails.
    """
    api = HfApi()
    _patiently(repository, lambda: api.create_tag(repository, tag=tag, revision=commit, exist_ok=True))


def _require_token() -> None:
    if not token_present():
        raise EnvironmentProblem(
            "no Hub token is stored, and pushing needs one with write access: run `hf auth login`"
        )
    if not (get_token() or "").isprintable() or not (get_token() or "").isascii():
        raise EnvironmentProblem(
            "the Hub token holds characters that no token has: run `hf auth login`, or set HF_TOKEN again"
        )


def _additions(folder: Path, files: Sequence[str]) -> list[CommitOperationAdd]:
    """Anew for every attempt: the client marks in them what it has done."""
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise BadInput(
            f"{str(folder / missing[0])!r} is no longer there; push again when the folder is complete"
        )
    return [CommitOperationAdd(name, folder / name) for name in files]


def _tip(api: HfApi, repository: str, *, public: bool) -> str:
    """The latest commit of the repository, which is created where it is missing."""
    try:
        info = api.model_info(repository)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        # exist_ok: somebody may be creating it at the same time.
        api.create_repo(repository, private=not public, exist_ok=True)
        info = api.model_info(repository)
    if bool(info.private) == public:
        current, requested = ("private", "public") if info.private else ("public", "private")
        advice = "leave public=True out" if info.private else "pass public=True to push there all the same"
        raise BadInput(
            f"the repository {repository!r} exists and is {current}, not {requested}; "
            f"{advice}, or choose another name"
        )
    return info.sha or ""


def _patiently(repository: str, ask: Callable[[], _Result]) -> _Result:
    """The answer of the Hub, which is asked again where that may help."""
    for pause in (*_PAUSES, None):
        try:
            return ask()
        except PiuLoraError:
            raise
        except Exception as error:  # the client lets its transport's own errors through
            if pause is None or not may_pass(error):
                raise upload_error(repository, error) from without_token(error)
            _log.warning("the Hub fails (%s); trying again", http_status(error) or "no answer")
            _pause(pause)
    raise AssertionError  # pragma: no cover


def _pause(seconds: float) -> None:
    time.sleep(seconds)
