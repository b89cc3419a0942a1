"""The client's errors in our words: what could not be had or sent, why, and what to do next."""

import errno
import traceback
from dataclasses import dataclass

from huggingface_hub import get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from piu_lora.errors import BadInput, EnvironmentProblem, PiuLoraError

__all__ = [
    "Download",
    "download_error",
    "http_status",
    "may_pass",
    "unreachable_error",
    "upload_error",
    "without_token",
]


def http_status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error of the client."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return int(status) if status is not None else None


def without_token(error: BaseException | None) -> BaseException | None:
    """The error as the cause of ours; None where its traceback would show the token.

    A Hub, or a proxy before it, may repeat the headers of a request in its answer.
    """
    token = get_token()
    if error is None or not token:
        return error
    return None if token in "".join(traceback.format_exception(error)) else error


def may_pass(error: Exception) -> bool:
    """Whether a failed upload may succeed when it is tried again.

    So it is with errors of the server, a commit by somebody else and a broken connection.
    """
    status = http_status(error)
    if status is not None:
        return status in (408, 409, 412, 429) or status >= 500
    return not isinstance(error, ValueError | TypeError | PermissionError | OfflineModeIsEnabled)


@dataclass(frozen=True)
class Download:
    """A file that was asked for, for messages.

    Attributes:
        description: the file and its repository.
        command: downloads it.
        offline: the caller forbids to ask the Hub.
        token: whether one was sent.
    """

    repository: str
    revision: str | None
    description: str
    command: str
    offline: bool
    token: bool


def unreachable_error(download: Download, error: Exception) -> EnvironmentProblem:
    """Why a file that is not in the cache cannot be downloaded either; the client's reason is the cause of
    its error.
    """
    status = http_status(error.__cause__)
    if download.offline or "offline" in str(error.__cause__ or error).lower():
        reason = "the Hub may not be asked (local_files_only or HF_HUB_OFFLINE)"
    elif status is not None:
        reason = f"the Hub answers {status}; try again later"
    else:
        reason = "the Hub cannot be reached; check the network"
    return EnvironmentProblem(
        f"{download.description} is not in the cache, and {reason}. With a network: `{download.command}`"
    )


def download_error(download: Download, error: Exception) -> PiuLoraError:
    """Why a download failed, by an error of the client or of its transport."""
    repository, description = download.repository, download.description
    status, text = http_status(error), str(error).strip()
    if isinstance(error, HFValidationError):
        return BadInput(
            f"{repository!r} is neither a folder nor a Hub id; pass mini, arc2face, a folder or a Hub id"
        )
    if isinstance(error, GatedRepoError):
        advice = "open its page on the Hub, accept its conditions, then run `hf auth login` with that account"
        return EnvironmentProblem(f"the repository {repository!r} is gated: {advice}")
    if status in (401, 403) and "invalid" in text.lower() and download.token:
        return EnvironmentProblem(
            "the Hub refuses your token: run `hf auth login`, or unset HF_TOKEN to go on without one"
        )
    if isinstance(error, RepositoryNotFoundError):
        advice = "check the name; if it is private, run `hf auth login` with an account that may read it"
        return EnvironmentProblem(f"the Hub has no repository {repository!r} that you can see: {advice}")
    if isinstance(error, RevisionNotFoundError):
        return EnvironmentProblem(
            f"the repository {repository!r} has no revision {download.revision!r}; pass another one"
        )
    if status is not None:
        return EnvironmentProblem(
            f"the Hub answers {status} for {description}; try again later: `{download.command}`"
        )
    if getattr(error, "errno", None) == errno.ENOSPC:
        return EnvironmentProblem(
            f"the disk is full: {description} does not fit; free some room, or move HF_HOME to another"
        )
    cause = text.splitlines()[0] if text else type(error).__name__
    return EnvironmentProblem(
        f"{description} could not be downloaded: {cause.rstrip('.')}. "
        f"Check the network and run `{download.command}`; what arrived whole is kept"
    )


def upload_error(repository: str, error: Exception) -> PiuLoraError:
    """Why an upload failed, after it was tried as often as makes sense."""
    status = http_status(error)
    if isinstance(error, HFValidationError):
        return BadInput(f"{repository!r} is no name of a repository; write it as USER/NAME")
    if isinstance(error, OfflineModeIsEnabled):
        return EnvironmentProblem(
            f"nothing can be pushed to {repository!r} while HF_HUB_OFFLINE is set; unset it"
        )
    if isinstance(error, PermissionError) and error.filename:
        return BadInput(f"{str(error.filename)!r} cannot be read; mend its permissions and push again")
    # The client reads the address of the repository from the answer to a conflict, and fails where there is
    # none.
    if status in (409, 412) or isinstance(error, KeyError):
        return EnvironmentProblem(f"somebody else is writing to {repository!r}; run the same command again")
    if status in _REFUSALS:
        return EnvironmentProblem(_REFUSALS[status].format(repository=repr(repository)))
    if status is not None:
        return EnvironmentProblem(
            f"the Hub answers {status} for {repository!r}; "
            "run the same command again later, what arrived is kept"
        )
    return EnvironmentProblem(
        f"{repository!r} could not be reached ({type(error).__name__}); check the network and run it again"
    )


_REFUSALS = {
    401: "the Hub refuses your token for {repository}: "
    "run `hf auth login`, or set HF_TOKEN to one with write access",
    403: "your token may not write to {repository}: use one with write access there (`hf auth login`)",
    404: "the Hub knows no {repository} that you may write to; check the name and `hf auth whoami`",
}
