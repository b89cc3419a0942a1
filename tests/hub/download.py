"""What the client asks for when it reads: who am I, what is there, and the files."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import parse_qs

from tests.hub.blobs import Blob
from tests.hub.faults import HubError
from tests.hub.handler import REPO, REV, HubHandler, route
from tests.hub.store import DATE, Commit, Repository


@route("GET", "/api/whoami-v2")
def whoami(handler: HubHandler) -> None:
    token = handler.token
    if token is None:
        raise HubError(401, "Invalid username or password.")
    role = "write" if token.write else "read"
    access = {"accessToken": {"displayName": "test", "role": role}}
    handler.reply(
        {
            "type": "user",
            "id": token.user,
            "name": token.user,
            "fullname": token.user,
            "orgs": [],
            "auth": access,
        }
    )


def _info(repository: Repository, commit: Commit) -> dict[str, Any]:
    return {
        "id": repository.repo_id,
        "modelId": repository.repo_id,
        "author": repository.repo_id.partition("/")[0],
        "sha": commit.oid,
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "createdAt": DATE,
        "lastModified": DATE,
        "siblings": [{"rfilename": path} for path in sorted(commit.files)],
    }


@route("GET", f"/api/models/{REPO}/refs")
def refs(handler: HubHandler, repo_id: str) -> None:
    repository = handler.hub.store.visible(repo_id, handler.token)
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid}
        for name, oid in repository.refs.items()
    ]
    tags = [
        {"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid}
        for name, oid in repository.tags.items()
    ]
    handler.reply({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


@route("GET", f"/api/models/{REPO}/auth-check")
def auth_check(handler: HubHandler, repo_id: str) -> None:
    handler.hub.store.readable(repo_id, handler.token)
    handler.reply({})


@route("GET", f"/api/models/{REPO}/commits/{REV}")
def commits(handler: HubHandler, repo_id: str, revision: str) -> None:
    repository = handler.hub.store.visible(repo_id, handler.token)
    commit: Commit | None = repository.resolve(revision)
    history = []
    while commit is not None:
        author = [{"user": commit.user}]
        history.append(
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.description,
                "date": DATE,
                "authors": author,
            }
        )
        commit = repository.commits[commit.parent] if commit.parent else None
    handler.reply(history)


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.git_oid}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
    return entry


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


@route("GET", f"/api/models/{REPO}/tree/{REV}(?:/(?P<folder>.*))?")
def tree(handler: HubHandler, repo_id: str, revision: str, folder: str) -> None:
    commit = handler.hub.store.visible(repo_id, handler.token).resolve(revision)
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    files = [path for path in sorted(commit.files) if path.startswith(prefix)]
    if folder and not files:
        raise HubError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    folders = sorted({parent for path in files for parent in _parents(path) if parent.startswith(prefix)})
    if handler.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
        files = [path for path in files if "/" not in path.removeprefix(prefix)]
        folders = [path for path in folders if "/" not in path.removeprefix(prefix)]
    handler.reply([_folder(path) for path in folders] + [_entry(path, commit.files[path]) for path in files])


@route("POST", f"/api/models/{REPO}/paths-info/{REV}")
def paths_info(handler: HubHandler, repo_id: str, revision: str) -> None:
    commit = handler.hub.store.visible(repo_id, handler.token).resolve(revision)
    wanted = parse_qs(b"".join(handler.body()).decode()).get("paths", [])
    folders = {parent for path in commit.files for parent in _parents(path)}
    entries = [_entry(path, commit.files[path]) for path in wanted if path in commit.files]
    handler.reply(entries + [_folder(path) for path in wanted if path in folders])


@route("GET", f"/api/models/{REPO}(?:/revision/{REV})?")
def model_info(handler: HubHandler, repo_id: str, revision: str) -> None:
    repository = handler.hub.store.visible(repo_id, handler.token)
    handler.reply(_info(repository, repository.resolve(revision or "main")))


@route("GET HEAD", f"/{REPO}/resolve/{REV}/(?P<path>.+)")
def resolve(handler: HubHandler, repo_id: str, revision: str, path: str) -> None:
    repository = handler.hub.store.readable(repo_id, handler.token)
    commit = repository.resolve(revision)
    blob = repository.blob(commit, path)
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.etag}"'}
    if blob.lfs:
        # The Hub redirects to its storage here; the client takes these headers with or without a redirect.
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
    handler.reply_blob(blob, headers)
