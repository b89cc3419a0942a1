"""Repositories, their commits, and who may see them."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tests.hub.blobs import Blob
from tests.hub.faults import HubError

# The one format that the client reads.
DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Commit:
    """One revision.

    Attributes:
        oid, parent: its id, and that of the revision before it.
        title, description, user: the text of the commit, and who made it.
        files: every file that it holds.
    """

    oid: str
    parent: str | None
    title: str
    description: str
    user: str
    files: Mapping[str, Blob]


@dataclass(frozen=True)
class Token:
    """Who a token stands for, and whether it may write."""

    user: str
    write: bool


def _revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


@dataclass
class Repository:
    """The commits and the refs of one model repository."""

    repo_id: str
    private: bool = False
    gated: bool = False
    granted: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    objects: dict[str, Blob] = field(default_factory=dict)

    def admits(self, token: Token | None) -> bool:
        return token is not None and (
            token.user == self.repo_id.partition("/")[0] or token.user in self.granted
        )

    def resolve(self, revision: str) -> Commit:
        """The commit of a branch, of a tag, of a full id or of an unambiguous beginning of one."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        if oid := self.refs.get(name) or self.tags.get(name):
            return self.commits[oid]
        found = [
            oid
            for oid in self.commits
            if re.fullmatch("[0-9a-f]{7,40}", revision) and oid.startswith(revision)
        ]
        if len(found) != 1:
            raise _revision_not_found(revision)
        return self.commits[found[0]]

    def blob(self, commit: Commit, path: str) -> Blob:
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.oid})
        return commit.files[path]

    def commit(
        self,
        branch: str,
        files: Mapping[str, Blob],
        title: str,
        *,
        description: str = "",
        user: str = "tester",
        oid: str | None = None,
    ) -> Commit:
        """A new revision at the tip of a branch; the older ones stay readable."""
        parent = self.refs.get(branch)
        if oid is None:
            oid = hashlib.sha1(
                f"{self.repo_id} {branch} {parent} {len(self.commits)} {title}".encode()
            ).hexdigest()
        if not re.fullmatch("[0-9a-f]{40}", oid):
            raise ValueError(f"not a revision of 40 hex digits: {oid}")
        commit = Commit(oid, parent, title, description, user, MappingProxyType(dict(files)))
        self.commits[oid] = commit
        self.refs[branch] = oid
        return commit

    def find_object(self, sha256: str, size: int) -> Blob | None:
        """An uploaded object, or a file of any revision; only files of the right size are hashed for that."""
        if sha256 in self.objects:
            return self.objects[sha256]
        blobs = (blob for commit in self.commits.values() for blob in commit.files.values())
        return next(
            (blob for blob in blobs if blob.lfs and blob.size == size and blob.sha256 == sha256), None
        )


class Store:
    """All repositories and tokens of one hub."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self.tokens: dict[str, Token] = {}

    def clear(self) -> None:
        with self.lock:
            self.repositories.clear()
            self.tokens.clear()

    def token(self, header: str | None) -> Token | None:
        """Who sent the request; a token that nobody holds is refused, even where none is needed."""
        if header is None:
            return None
        token = self.tokens.get(header.removeprefix("Bearer "))
        if token is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return token

    def get(self, repo_id: str) -> Repository:
        if repo_id not in self.repositories:
            raise HubError(404, "Repository not found", "RepoNotFound")
        return self.repositories[repo_id]

    def visible(self, repo_id: str, token: Token | None) -> Repository:
        """A repository whose existence this request may learn of."""
        repository = self.get(repo_id)
        if repository.private and not repository.admits(token):
            if token is None:
                # The code is ours: without it the client sees no missing repository behind http, only behind
                # https.
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(404, "Repository not found", "RepoNotFound")
        return repository

    def readable(self, repo_id: str, token: Token | None) -> Repository:
        """A repository whose files this request may read."""
        repository = self.visible(repo_id, token)
        if repository.gated and not repository.admits(token):
            if token is None:
                raise HubError(
                    401,
                    f"Access to model {repo_id} is restricted. You must be authenticated to access it.",
                    "GatedRepo",
                )
            raise HubError(
                403,
                f"Access to model {repo_id} is restricted and you are not in the authorized list.",
                "GatedRepo",
            )
        return repository

    def writable(self, repo_id: str, token: Token | None) -> Repository:
        """A repository to which this request may commit."""
        repository = self.visible(repo_id, token)
        if token is None:
            raise HubError(401, "Invalid username or password.")
        if not (token.write and repository.admits(token)):
            raise HubError(403, "Forbidden: pass a token with write access to this repository")
        return repository
