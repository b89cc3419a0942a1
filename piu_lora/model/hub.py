"""Files of a base, from a folder or from the Hugging Face Hub; every way to fail has its own message and its
own mending command.
"""

import errno
import hashlib
import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from huggingface_hub import constants, get_token, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from piu_lora.errors import BadInput, EnvironmentProblem, PiuLoraError

__all__ = ["Files", "HubFiles", "LocalFiles", "cache_folder", "cached_file", "http_status", "token_present"]

_log = logging.getLogger("piu_lora")


class Files(Protocol):
    """Where the files of a base come from."""

    @property
    def name(self) -> str:
        """The place, for messages."""

    def find(self, name: str) -> Path | None:
        """The local path of a file; None when the place holds no such file."""

    def get(self, name: str, *others: str) -> Path:
        """The local path of a file that must be there, in one of its forms."""

    def repair(self, name: str) -> str:
        """What to do about a damaged file."""


@dataclass(frozen=True)
class LocalFiles:
    """Files of a folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    def find(self, name: str) -> Path | None:
        """The file, if it is there."""
        path = self.folder / name
        return path if path.is_file() else None

    def get(self, name: str, *others: str) -> Path:
        """The first of these files that is there.

        Raises:
            BadInput: none is.
        """
        for each in (name, *others):
            if (path := self.find(each)) is not None:
                return path
        raise BadInput(
            f"the base {self.name!r} lacks {' or '.join([name, *others])}; copy it there, or pass arc2face, mini or a Hub id"
        )

    def repair(self, name: str) -> str:
        """A folder has no other source."""
        return f"copy {name} there again"


@dataclass(frozen=True)
class HubFiles:
    """Files of one repository on the Hub, downloaded when first asked for.

    A file that is in the cache at a pinned revision needs no network.

    Attributes:
        repository: ``user/name``.
        revision: branch, tag or commit; ``main`` by default.
        cache_dir: as in huggingface_hub; the user's own cache by default.
        local_files_only: never ask the Hub.
        token: of the Hub; the stored one by default.
    """

    repository: str
    revision: str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    token: str | bool | None = None

    @property
    def name(self) -> str:
        """``user/name``, with the revision where one was given."""
        return self.repository + (f"@{self.revision[:12]}" if self.revision else "")

    @cached_property
    def commit(self) -> str:
        """The commit that the revision stands for, as the cache names it; empty while nothing is cached."""
        if self.revision and re.fullmatch("[0-9a-f]{40}", self.revision):
            return self.revision
        for name in ("model_index.json", "arc2face/config.json"):
            found = cached_file(self.repository, name, self.revision, self.cache_dir)
            if found is not None:
                return found.parents[name.count("/")].name
        return ""

    def command(self, name: str, *options: str) -> str:
        """The command that fetches a file."""
        revision = ["--revision", self.revision] if self.revision else []
        return " ".join(["hf download", self.repository, name, *revision, *options])

    def repair(self, name: str) -> str:
        """The command that fetches a file anew."""
        return f"run `{self.command(name, '--force-download')}`"

    def cached(self, name: str) -> Path | None:
        """The file, if it is in the cache."""
        return cached_file(self.repository, name, self.revision, self.cache_dir)

    def present(self, name: str) -> bool:
        """Whether the file is in the cache."""
        return self.cached(name) is not None

    def find(self, name: str) -> Path | None:
        """The file; None when the repository has none of that name.

        Raises:
            EnvironmentProblem: the Hub cannot be asked, or refuses.
        """
        try:
            return self._download(name)
        except LocalEntryNotFoundError as error:
            if self._known_absent(name):
                return None
            raise self._unreachable(name, error) from error
        except EntryNotFoundError:
            return None
        except PiuLoraError:
            raise
        except Exception as error:  # the client lets its transport's own errors through
            known = self.cached(name)
            if known is not None and http_status(error) is None:
                _log.warning("the Hub cannot be reached; %s of %s is taken from the cache", name, self.name)
                return known
            raise self._explained(name, error) from error

    def get(self, name: str, *others: str) -> Path:
        """The first of these files that is there; what is in the cache goes first.

        Raises:
            EnvironmentProblem: none is there, the Hub cannot be asked, or refuses.
        """
        # Offline, nobody can say that a better form does not exist: what is there already goes first.
        for each in sorted((name, *others), key=lambda form: not self.present(form)):
            if (path := self.find(each)) is not None:
                return path
        raise EnvironmentProblem(
            f"the repository {self.name!r} holds no {' or '.join([name, *others])}; "
            "pass a repository in the layout of Arc2Face or of diffusers, or another revision"
        )

    def _download(self, name: str) -> Path:
        known = self.present(name)
        path = Path(
            hf_hub_download(
                self.repository, name, revision=self.revision, cache_dir=self.cache_dir, token=self.token,
                local_files_only=self.local_files_only,
            )
        )  # fmt: skip
        if not known:
            self._check(path, name)
        return path

    def _check(self, path: Path, name: str) -> None:
        """A fresh large file carries its SHA-256 as the name of its blob; the client itself compares sizes
        only.
        """
        blob = path.resolve()
        if not re.fullmatch("[0-9a-f]{64}", blob.name):
            return
        with blob.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == blob.name:
                return
        path.unlink()
        blob.unlink()
        raise EnvironmentProblem(
            f"{name} of {self.name!r} arrived damaged (its SHA-256 is not the announced one) and was deleted; {self.repair(name)}"
        )

    def _known_absent(self, name: str) -> bool:
        """Whether the cache remembers that the repository holds no such file, or holds the repository without
        it.
        """
        found = try_to_load_from_cache(
            self.repository, name, cache_dir=self.cache_dir, revision=self.revision
        )
        return found is not None and not isinstance(found, str)

    def _unreachable(self, name: str, error: Exception) -> EnvironmentProblem:
        status = http_status(error.__cause__)
        if self.local_files_only or "offline" in str(error.__cause__ or error).lower():
            why = "the Hub may not be asked (local_files_only or HF_HUB_OFFLINE)"
        elif status is not None:
            why = f"the Hub answers {status}; try again later"
        else:
            why = "the Hub cannot be reached; check the network"
        return EnvironmentProblem(
            f"{name} of {self.name!r} is not in the cache, and {why}. With a network: `{self.command(name)}`"
        )

    def _explained(self, name: str, error: Exception) -> PiuLoraError:
        status, text = http_status(error), str(error).strip()
        if isinstance(error, HFValidationError):
            return BadInput(
                f"{self.repository!r} is neither a folder nor a Hub id; pass mini, arc2face, a folder or a Hub id"
            )
        if isinstance(error, GatedRepoError):
            advice = (
                "open its page on the Hub, accept its conditions, then run `hf auth login` with that account"
            )
            return EnvironmentProblem(f"the repository {self.repository!r} is gated: {advice}")
        if status in (401, 403) and "invalid" in text.lower() and (self.token or get_token()):
            return EnvironmentProblem(
                "the Hub refuses your token: run `hf auth login`, or unset HF_TOKEN to go on without one"
            )
        if isinstance(error, RepositoryNotFoundError):
            advice = "check the name; if it is private, run `hf auth login` with an account that may read it"
            return EnvironmentProblem(
                f"the Hub has no repository {self.repository!r} that you can see: {advice}"
            )
        if isinstance(error, RevisionNotFoundError):
            return EnvironmentProblem(
                f"the repository {self.repository!r} has no revision {self.revision!r}; pass another one"
            )
        if status is not None:
            return EnvironmentProblem(
                f"the Hub answers {status} for {name} of {self.name!r}; try again later: `{self.command(name)}`"
            )
        if getattr(error, "errno", None) == errno.ENOSPC:
            return EnvironmentProblem(
                f"the disk is full: {name} of {self.name!r} does not fit; free some room, or move HF_HOME to another"
            )
        cause = text.splitlines()[0] if text else type(error).__name__
        return EnvironmentProblem(
            f"{name} of {self.name!r} could not be downloaded: {cause.rstrip('.')}. Check the network and run `{self.command(name)}`; "
            "what arrived whole is kept"
        )


def http_status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error of the client."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return int(status) if status is not None else None


def cached_file(
    repository: str, name: str, revision: str | None = None, cache_dir: str | Path | None = None
) -> Path | None:
    """The path of a file in the Hub's cache; None where it is not there. Asks no network."""
    try:
        found = try_to_load_from_cache(repository, name, cache_dir=cache_dir, revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) and Path(found).exists() else None


def cache_folder() -> Path:
    """Where the Hub's files are kept."""
    return Path(constants.HF_HUB_CACHE)


def token_present() -> bool:
    """Whether a Hub token is set or stored; its value stays where it is."""
    return bool(get_token())
