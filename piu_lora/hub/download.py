"""Files of a repository on the Hub, downloaded when first asked for and checked when they arrive."""

import hashlib
import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from piu_lora.errors import EnvironmentProblem, PiuLoraError
from piu_lora.hub.cache import absent_by_cache, cached_commit, cached_file, token_present
from piu_lora.hub.errors import Download, download_error, http_status, unreachable_error, without_token

__all__ = ["HubFiles"]

_log = logging.getLogger("piu_lora")


@dataclass(frozen=True)
class HubFiles:
    """Files of one repository. A file that is in the cache at a pinned revision needs no network.

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
        return cached_commit(self.repository, self.revision or "main", self.cache_dir)

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

    def find(self, name: str) -> Path | None:
        """The file; None when the repository has none of that name.

        Raises:
            EnvironmentProblem: the Hub cannot be asked, or refuses.
        """
        try:
            return self._download(name)
        except LocalEntryNotFoundError as error:
            if absent_by_cache(self.repository, name, self.revision, self.cache_dir):
                return None
            raise unreachable_error(self._asked(name), error) from without_token(error)
        except EntryNotFoundError:
            return None
        except PiuLoraError:
            raise
        except Exception as error:  # the client lets its transport's own errors through
            cached = self.cached(name)
            if cached is not None and http_status(error) is None:
                _log.warning("the Hub cannot be reached; %s of %s is taken from the cache", name, self.name)
                return cached
            raise download_error(self._asked(name), error) from without_token(error)

    def _asked(self, name: str) -> Download:
        return Download(
            self.repository,
            self.revision,
            f"{name} of {self.name!r}",
            self.command(name),
            self.local_files_only,
            bool(self.token) or token_present(),
        )

    def get(self, name: str, *others: str) -> Path:
        """The first of these files that is there; what is in the cache goes first.

        Raises:
            EnvironmentProblem: none is there, the Hub cannot be asked, or refuses.
        """
        # Offline, nobody can say that a better form does not exist: what is there already goes first.
        for form in sorted((name, *others), key=lambda form: self.cached(form) is None):
            if (path := self.find(form)) is not None:
                return path
        raise EnvironmentProblem(
            f"the repository {self.name!r} holds no {' or '.join([name, *others])}; "
            "pass a repository in the layout of Arc2Face or of diffusers, or another revision"
        )

    def _download(self, name: str) -> Path:
        was_cached = self.cached(name) is not None
        path = Path(
            hf_hub_download(
                self.repository,
                name,
                revision=self.revision,
                cache_dir=self.cache_dir,
                token=self.token,
                local_files_only=self.local_files_only,
            )
        )
        if not was_cached:
            self._check(path, name)
        return path

    def _check(self, path: Path, name: str) -> None:
        """Compare a fresh large file with its SHA-256, which is the name of its blob.

        The client itself compares sizes only.
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
            f"{name} of {self.name!r} arrived damaged (its SHA-256 is not the announced one) "
            f"and was deleted; {self.repair(name)}"
        )
