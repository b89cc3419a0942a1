"""What the client asks for when it writes: repositories, large objects and commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hub.blobs import Blob, is_lfs
from tests.hub.faults import HubError
from tests.hub.handler import REPO, REV, HubHandler, cut_after, route
from tests.hub.store import Commit, Repository

GITATTRIBUTES = (
    b"*.bin filter=lfs diff=lfs merge=lfs -text\n*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
)
Files = dict[str, Blob]


def _named_repository(handler: HubHandler, payload: dict[str, Any]) -> str:
    """The repository that a request to create or delete names; the sender must be allowed to write there."""
    token = handler.token
    if token is None:
        raise HubError(401, "Invalid username or password.")
    namespace = payload.get("organization") or token.user
    if not token.write or namespace != token.user:
        raise HubError(
            403, f'You don\'t have the rights to create or delete a model under the namespace "{namespace}"'
        )
    if payload.get("type") not in (None, "model"):
        raise HubError(400, "the loopback hub has only models")
    return f"{namespace}/{payload['name']}"


@route("POST", "/api/repos/create")
def create(handler: HubHandler) -> None:
    payload = handler.json_body()
    repo_id = _named_repository(handler, payload)
    store, url = handler.hub.store, f"{handler.hub.url}/{repo_id}"
    with store.lock:
        if repo_id in store.repositories:
            handler.reply({"error": "You already created this model repo", "url": url}, 409)
            return
        private = payload.get("visibility") == "private" or payload.get("private") is True
        repository = store.repositories[repo_id] = Repository(repo_id, private)
        repository.commit("main", {".gitattributes": Blob(".gitattributes", GITATTRIBUTES)}, "initial commit")
    handler.reply({"url": url, "name": repo_id, "id": uuid.uuid4().hex})


@route("DELETE", "/api/repos/delete")
def delete(handler: HubHandler) -> None:
    payload = handler.json_body()
    repo_id = _named_repository(handler, payload)
    with handler.hub.store.lock:
        handler.hub.store.get(repo_id)
        del handler.hub.store.repositories[repo_id]
    handler.reply({})


@route("POST", f"/api/models/{REPO}/tag/{REV}")
def tag(handler: HubHandler, repo_id: str, revision: str) -> None:
    repository = handler.hub.store.writable(repo_id, handler.token)
    name = handler.json_body()["tag"]
    if name in repository.tags:
        raise HubError(409, f"Tag {name} already exists")
    repository.tags[name] = repository.resolve(revision).oid
    handler.reply({})


@route("POST", "/api/validate-yaml")
def validate_yaml(handler: HubHandler) -> None:
    """Only the shape is looked at: the Hub parses the YAML, which the standard library cannot."""
    content = handler.json_body()["content"]
    errors, warnings = [], []
    if not content.startswith("---\n"):
        warnings.append({"message": "empty or missing yaml metadata in repo card"})
    elif not re.match(r"---\n.*?^---\s*$", content, re.DOTALL | re.MULTILINE):
        errors.append({"message": "the yaml metadata is never closed"})
    handler.reply({"errors": errors, "warnings": warnings}, 400 if errors else 200)


@route("POST", f"/api/models/{REPO}/preupload/{REV}")
def preupload(handler: HubHandler, repo_id: str, revision: str) -> None:
    commit = handler.hub.store.writable(repo_id, handler.token).resolve(revision)
    answers = []
    for file in handler.json_body()["files"]:
        lfs = is_lfs(file["path"], file["size"], base64.b64decode(file["sample"]))
        answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        if file["path"] in commit.files:
            answer["oid"] = commit.files[file["path"]].etag
        answers.append(answer)
    handler.reply({"files": answers})


@route("POST", f"/{REPO}\\.git/info/lfs/objects/batch")
def lfs_batch(handler: HubHandler, repo_id: str) -> None:
    repository = handler.hub.store.writable(repo_id, handler.token)
    objects = []
    for item in handler.json_body()["objects"]:
        answer = {"oid": item["oid"], "size": item["size"]}
        if repository.find_object(item["oid"], item["size"]) is None:
            ticket = uuid.uuid4().hex
            handler.hub.tickets[ticket] = (repo_id, item["oid"], item["size"])
            verify = {"href": f"{handler.hub.url}/{repo_id}.git/info/lfs/objects/verify"}
            answer["actions"] = {
                "upload": {"href": f"{handler.hub.url}/lfs/{repo_id}/{ticket}"},
                "verify": verify,
            }
        objects.append(answer)
    handler.reply({"transfer": "basic", "objects": objects})


@route("PUT", f"/lfs/{REPO}/(?P<ticket>[0-9a-f]{{32}})")
def lfs_put(handler: HubHandler, repo_id: str, ticket: str) -> None:
    """The bytes, to a file of their own; they count only with the size and the sha256 announced before."""
    if ticket not in handler.hub.tickets or handler.hub.tickets[ticket][0] != repo_id:
        raise HubError(403, "this upload was not announced")
    _, oid, size = handler.hub.tickets[ticket]
    target = handler.hub.uploads / uuid.uuid4().hex
    digest = _receive(handler, target)
    if (digest, target.stat().st_size) != (oid, size):
        target.unlink()
        raise HubError(422, "the bytes have another size or another sha256 than announced")
    blob = Blob("object", target)
    blob.lfs = True
    handler.hub.store.get(repo_id).objects[oid] = blob
    handler.reply({})


def _receive(handler: HubHandler, target: Path) -> str:
    digest = hashlib.sha256()
    fault = handler.hub.faults.take("PUT", handler.url_path, "cut")
    with target.open("wb") as file:
        for chunk in handler.body() if fault is None else cut_after(handler.body(), fault.after):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


@route("POST", f"/{REPO}\\.git/info/lfs/objects/verify")
def lfs_verify(handler: HubHandler, repo_id: str) -> None:
    repository = handler.hub.store.writable(repo_id, handler.token)
    _uploaded(repository, handler.json_body())
    handler.reply({})


def _uploaded(repository: Repository, item: dict[str, Any]) -> Blob:
    blob = repository.find_object(item["oid"], item.get("size", -1))
    if blob is None:
        raise HubError(400, f"the object {item['oid']} was not uploaded")
    return blob


def _put_file(repository: Repository, files: Files, value: dict[str, Any]) -> None:
    blob = Blob(value["path"], base64.b64decode(value["content"]))
    if blob.lfs:
        raise HubError(400, f"{value['path']} belongs into large file storage")
    files[value["path"]] = blob


def _put_lfs_file(repository: Repository, files: Files, value: dict[str, Any]) -> None:
    files[value["path"]] = _uploaded(repository, value)


def _delete_file(repository: Repository, files: Files, value: dict[str, Any]) -> None:
    if files.pop(value["path"], None) is None:
        raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")


def _delete_folder(repository: Repository, files: Files, value: dict[str, Any]) -> None:
    inside = [path for path in files if path.startswith(value["path"].rstrip("/") + "/")]
    if not inside:
        raise HubError(404, "A folder with this name doesn't exist", "EntryNotFound")
    for path in inside:
        del files[path]


_operations: dict[str, Callable[[Repository, Files, dict[str, Any]], None]] = {
    "file": _put_file,
    "lfsFile": _put_lfs_file,
    "deletedFile": _delete_file,
    "deletedFolder": _delete_folder,
}


@route("POST", f"/api/models/{REPO}/commit/{REV}")
def commit(handler: HubHandler, repo_id: str, revision: str) -> None:
    token = handler.token
    repository = handler.hub.store.writable(repo_id, token)
    if "create_pr" in handler.query:
        raise HubError(400, "the loopback hub has no pull requests")
    lines = [json.loads(line) for line in b"".join(handler.body()).splitlines()]
    with handler.hub.store.lock:
        made = _apply(repository, revision, lines, token.user if token else "")
    handler.reply(
        {
            "success": True,
            "commitOid": made.oid,
            "commitUrl": f"{handler.hub.url}/{repo_id}/commit/{made.oid}",
        }
    )


def _apply(repository: Repository, branch: str, lines: list[dict[str, Any]], user: str) -> Commit:
    if branch not in repository.refs:
        raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    header = next(line["value"] for line in lines if line["key"] == "header")
    parent = header.get("parentCommit")
    if parent is not None and parent != repository.refs[branch]:
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files = dict(repository.resolve(branch).files)
    for line in lines:
        if line["key"] != "header":
            _operations[line["key"]](repository, files, line["value"])
    return repository.commit(
        branch, files, header["summary"], description=header.get("description", ""), user=user
    )


@route("POST", f"/api/models/{REPO}/branch/{REV}")
def create_branch(handler: HubHandler, repo_id: str, revision: str) -> None:
    repository = handler.hub.store.writable(repo_id, handler.token)
    start = handler.json_body().get("startingPoint") or "main"
    if revision in repository.refs:
        raise HubError(409, f"Reference already exists: refs/heads/{revision}")
    repository.refs[revision] = repository.resolve(start).oid
    handler.reply({})
