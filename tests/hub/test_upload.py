"""Uploads of the real client to the loopback hub."""

import hashlib
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub import LoopbackHub
from tests.hub.repository import BIG, FILES


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    hub.add_token("good", "me")
    return HfApi(token="good")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\nText.\n")
    (folder / "a.safetensors").write_bytes(BIG)
    (folder / "plain.json").write_text("{}")
    return folder


def test_a_push_and_the_same_push_again(hub: LoopbackHub, api: HfApi, folder: Path) -> None:
    url = api.create_repo("me/forget")
    assert (url.repo_id, url) == ("me/forget", f"{hub.url}/me/forget")
    first = api.upload_folder(repo_id="me/forget", folder_path=folder, commit_message="a push")
    assert hub.files("me/forget") == [".gitattributes", "README.md", "a.safetensors", "plain.json"]
    assert hub.read("me/forget", "a.safetensors") == BIG
    assert [commit.title for commit in hub.commits("me/forget")] == ["initial commit", "a push"]
    again = api.upload_folder(repo_id="me/forget", folder_path=folder)
    assert again.oid == first.oid == hub.commits("me/forget")[-1].oid
    assert len(hub.asked("/lfs/", "PUT")) == 1
    assert Path(hf_hub_download("me/forget", "a.safetensors")).read_bytes() == BIG


def test_a_push_onto_files_the_test_put_there(hub: LoopbackHub, api: HfApi, folder: Path) -> None:
    hub.add_repository("me/forget", folder)
    api.upload_folder(repo_id="me/forget", folder_path=folder)
    assert len(hub.commits("me/forget")) == 1
    (folder / "plain.json").write_text("[]")
    api.upload_folder(repo_id="me/forget", folder_path=folder)
    assert hub.read("me/forget", "plain.json") == b"[]"
    assert hub.asked("/lfs/", "PUT") == []


def test_a_large_file(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    large = tmp_path / "large.txt"
    large.write_bytes(b"0123456789ab" * 1_000_000)
    api.create_repo("me/large")
    api.upload_file(path_or_fileobj=large, path_in_repo="large.txt", repo_id="me/large")
    assert len(hub.asked("/lfs/", "PUT")) == len(hub.asked("objects/verify")) == 1
    assert Path(hf_hub_download("me/large", "large.txt")).read_bytes() == large.read_bytes()


def test_delete_files_and_repository(hub: LoopbackHub, api: HfApi) -> None:
    hub.add_repository("me/forget", FILES)
    parent = hub.commits("me/forget")[0].oid
    operations = [
        CommitOperationDelete("unet/"),
        CommitOperationDelete("empty.txt"),
        CommitOperationAdd("new", b"new"),
    ]
    api.create_commit("me/forget", operations, commit_message="fewer", parent_commit=parent)
    assert hub.files("me/forget") == ["config.json", "new"]
    assert hub.files("me/forget", parent) == sorted(FILES)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        api.create_commit(
            "me/forget", [CommitOperationAdd("n", b"n")], commit_message="late", parent_commit=parent
        )
    with pytest.raises(RemoteEntryNotFoundError, match="file with this name doesn't exist"):
        api.delete_file("empty.txt", "me/forget")
    api.delete_repo("me/forget")
    assert not hub.has("me/forget")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("me/forget")


def test_a_repository_that_is_there(hub: LoopbackHub, api: HfApi) -> None:
    api.create_repo("me/forget", private=True)
    assert hub.store.get("me/forget").private
    with pytest.raises(HfHubHTTPError, match="already created") as caught:
        api.create_repo("me/forget")
    assert caught.value.response.status_code == 409
    assert api.create_repo("me/forget", exist_ok=True).repo_id == "me/forget"


@pytest.mark.parametrize("token", ["read", "stranger"])
def test_no_write_access(hub: LoopbackHub, api: HfApi, folder: Path, token: str) -> None:
    hub.add_token("read", "me", write=False)
    hub.add_token("stranger", "stranger")
    api.create_repo("me/forget")
    for refused in (
        lambda: api.upload_folder(repo_id="me/forget", folder_path=folder, token=token),
        lambda: api.create_repo("me/other", token=token),
        lambda: api.delete_repo("me/forget", token=token),
    ):
        with pytest.raises(HfHubHTTPError, match="403 Forbidden") as caught:
            refused()
        assert caught.value.response.status_code == 403
    assert len(hub.commits("me/forget")) == 1


def test_a_push_to_what_is_not_there(hub: LoopbackHub, api: HfApi, folder: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.upload_folder(repo_id="me/forget", folder_path=folder)
    api.create_repo("me/forget")
    with pytest.raises(RevisionNotFoundError):
        api.upload_folder(repo_id="me/forget", folder_path=folder, revision="none")
    api.create_branch("me/forget", branch="v1")
    api.upload_folder(repo_id="me/forget", folder_path=folder, revision="v1")
    assert (len(hub.files("me/forget")), len(hub.files("me/forget", "v1"))) == (1, 4)


def test_a_card_without_an_end(api: HfApi, folder: Path) -> None:
    api.create_repo("me/forget")
    (folder / "README.md").write_text("---\nlicense: mit\n")
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        api.upload_folder(repo_id="me/forget", folder_path=folder)


def test_a_push_through_errors(hub: LoopbackHub, api: HfApi, folder: Path, naps: list[float]) -> None:
    api.create_repo("me/forget")
    hub.fail("/preupload/", 503)
    hub.fail("/lfs/", 500, method="PUT")
    hub.cut("/lfs/", after=1000, method="PUT")
    api.upload_folder(repo_id="me/forget", folder_path=folder)
    assert hub.read("me/forget", "a.safetensors") == BIG
    assert (len(hub.asked("/lfs/", "PUT")), len(naps)) == (3, 3)


def test_a_failed_commit_is_not_tried_again(hub: LoopbackHub, api: HfApi, folder: Path) -> None:
    api.create_repo("me/forget")
    hub.fail("/commit/", 500)
    with pytest.raises(HfHubHTTPError):
        api.upload_folder(repo_id="me/forget", folder_path=folder)
    assert len(hub.commits("me/forget")) == 1
    api.upload_folder(repo_id="me/forget", folder_path=folder)
    # The large object had arrived before the commit failed.
    assert len(hub.asked("/lfs/", "PUT")) == 1


def test_wrong_bytes_are_refused(hub: LoopbackHub, api: HfApi) -> None:
    api.create_repo("me/forget")
    item = {"oid": hashlib.sha256(b"right").hexdigest(), "size": 5}
    batch = _send(
        hub, "POST", "/me/forget.git/info/lfs/objects/batch", json.dumps({"objects": [item]}).encode()
    )[1]
    href = batch["objects"][0]["actions"]["upload"]["href"].removeprefix(hub.url)
    assert [_send(hub, "PUT", href, data)[0] for data in (b"wrong", b"righ", b"right")] == [422, 422, 200]
    assert _send(hub, "PUT", href[:-3] + "000", b"right")[0] == 403


def _send(hub: LoopbackHub, method: str, path: str, data: bytes) -> tuple[int, dict]:
    request = urllib.request.Request(hub.url + path, data, {"Authorization": "Bearer good"}, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
