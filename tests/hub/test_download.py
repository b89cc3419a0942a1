"""Downloads of the real client from the loopback hub: revisions, permissions, faults, offline."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub import LoopbackHub
from tests.hub.blobs import git_oid
from tests.hub.repository import BIG, FILES, ID, REVISION

# Reading


@pytest.mark.parametrize("revision", ["main", REVISION, "refs/heads/main", "v1", REVISION[:8]])
def test_every_way_to_name_a_revision(base: LoopbackHub, revision: str) -> None:
    base.add_branch(ID, "v1")
    path = Path(snapshot_download(ID, revision=revision))
    assert path.name == REVISION
    assert {
        file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()
    } == FILES


def test_patterns_ask_for_those_files_only(base: LoopbackHub, hub_cache: Path) -> None:
    path = Path(snapshot_download(ID, allow_patterns=["unet/*.json"]))
    assert [file.name for file in path.rglob("*") if file.is_file()] == ["config.json"]
    assert hub_cache in path.parents
    assert base.asked("/resolve/", "GET") == [("GET", f"/{ID}/resolve/{REVISION}/unet/config.json")]


def test_a_folder_is_served_from_disk(hub: LoopbackHub, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, data in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    (source / ".cache/huggingface").mkdir(parents=True)
    (source / ".cache/huggingface/left").write_text("over")
    hub.add_repository(ID, source)
    assert hub.files(ID) == sorted(FILES)
    assert Path(hf_hub_download(ID, "unet/weights.safetensors")).read_bytes() == BIG
    assert hub.read(ID, "config.json") == b"{}"


def test_metadata(base: LoopbackHub) -> None:
    api = HfApi()
    tree = {entry.path: entry for entry in api.list_repo_tree(ID, recursive=True)}
    weights = tree["unet/weights.safetensors"]
    assert (weights.lfs.sha256, weights.lfs.size) == (hashlib.sha256(BIG).hexdigest(), len(BIG))
    assert (tree["config.json"].blob_id, tree["config.json"].lfs) == (git_oid(b"{}"), None)
    assert {entry.path for entry in api.list_repo_tree(ID)} == {"config.json", "empty.txt", "unet"}
    assert {entry.path for entry in api.get_paths_info(ID, ["config.json", "unet", "none"])} == {
        "config.json",
        "unet",
    }
    assert (api.model_info(ID).sha, api.model_info(ID, revision=REVISION).sha) == (REVISION, REVISION)
    assert [commit.commit_id for commit in api.list_repo_commits(ID)] == [REVISION]
    assert [branch.name for branch in api.list_repo_refs(ID).branches] == ["main"]
    assert api.file_exists(ID, "config.json")
    assert not api.file_exists(ID, "none")


def test_a_name_that_needs_quoting(hub: LoopbackHub) -> None:
    hub.add_repository(ID, {"a b/ü#?.json": b"{}"})
    hub.add_branch(ID, "release/1")
    assert Path(hf_hub_download(ID, "a b/ü#?.json", revision="release/1")).read_bytes() == b"{}"


def test_old_revisions_stay(base: LoopbackHub) -> None:
    newer = base.add_repository(ID, {"config.json": b"[]"})
    assert Path(hf_hub_download(ID, "config.json")).read_bytes() == b"[]"
    assert Path(hf_hub_download(ID, "config.json", revision=REVISION)).read_bytes() == b"{}"
    assert [commit.oid for commit in base.commits(ID)] == [REVISION, newer]


@pytest.mark.parametrize(
    ("error", "repo_id", "name", "revision"),
    [
        (RemoteEntryNotFoundError, ID, "none", None),
        (RevisionNotFoundError, ID, "config.json", "none"),
        (RevisionNotFoundError, ID, "config.json", "f" * 40),
        (RepositoryNotFoundError, "someone/else", "config.json", None),
    ],
)
def test_what_is_missing(
    base: LoopbackHub, error: type[Exception], repo_id: str, name: str, revision: str | None
) -> None:
    with pytest.raises(error):
        hf_hub_download(repo_id, name, revision=revision)
    if error is not RemoteEntryNotFoundError:
        with pytest.raises(error):
            snapshot_download(repo_id, revision=revision)


def test_a_missing_file_is_an_entry_not_found(base: LoopbackHub) -> None:
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(ID, "none")


# Who may read


def test_private(hub: LoopbackHub) -> None:
    hub.add_repository(ID, FILES, private=True)
    for token, user in {"owner": "someone", "guest": "guest", "stranger": "stranger"}.items():
        hub.add_token(token, user, write=False)
    hub.grant(ID, "guest")
    for token in ("owner", "guest"):
        assert hf_hub_download(ID, "config.json", token=token)
    for token in (False, "stranger"):
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download(ID, "unet/config.json", token=token)
        with pytest.raises(RepositoryNotFoundError):
            snapshot_download(ID, revision="main", token=token, cache_dir="unused")


def test_gated(hub: LoopbackHub) -> None:
    hub.add_repository(ID, FILES, gated=True)
    hub.add_token("stranger", "stranger")
    for token, status in {False: 401, "stranger": 403}.items():
        assert HfApi().model_info(ID, token=token).gated == "manual"
        with pytest.raises(GatedRepoError) as caught:
            snapshot_download(ID, token=token)
        assert caught.value.response.status_code == status
    hub.grant(ID, "stranger")
    assert snapshot_download(ID, token="stranger")


def test_a_wrong_token_is_refused_even_for_what_is_public(base: LoopbackHub) -> None:
    for ask in (
        lambda: hf_hub_download(ID, "config.json", token="wrong"),
        lambda: snapshot_download(ID, token="wrong"),
    ):
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as caught:
            ask()
        assert type(caught.value) is HfHubHTTPError
        assert caught.value.response.status_code == 401


def test_the_token_of_the_environment(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_repository(ID, FILES, private=True)
    hub.add_token("good", "someone", write=False)
    monkeypatch.setenv("HF_TOKEN", "good")
    assert hf_hub_download(ID, "config.json")
    assert HfApi().whoami()["name"] == "someone"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi().whoami(token="wrong")


# Faults


@pytest.mark.usefixtures("naps")
def test_a_cut_download_resumes_where_it_was(base: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    # With its chunks of 10 MB the client forgets what it has of a smaller file and starts anew.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    base.cut("weights", after=5500, times=2)
    sent: list[str | None] = []
    monkeypatch.setattr("tests.hub.handler.HubHandler.requested_range", _recorded(sent))
    assert Path(hf_hub_download(ID, "unet/weights.safetensors")).read_bytes() == BIG
    assert sent == [None, None, "bytes=5000-", "bytes=10000-"]


def _recorded(sent: list[str | None]):
    from tests.hub.handler import HubHandler

    real = HubHandler.requested_range

    def requested_range(self: HubHandler, size: int) -> tuple[int, int]:
        sent.append(self.headers.get("Range"))
        return real(self, size)

    return requested_range


@pytest.mark.usefixtures("naps")
def test_a_cut_download_of_a_small_file_starts_anew(base: LoopbackHub) -> None:
    base.cut("weights", after=1000)
    assert Path(hf_hub_download(ID, "unet/weights.safetensors")).read_bytes() == BIG
    assert len(base.asked("weights", "GET")) == 2


def test_the_client_gives_up_after_six_cuts(base: LoopbackHub, naps: list[float]) -> None:
    base.cut("weights", after=1000, times=None)
    with pytest.raises(Exception, match="peer closed connection"):
        hf_hub_download(ID, "unet/weights.safetensors")
    assert (len(base.asked("weights", "GET")), len(naps)) == (6, 5)


def test_a_500_on_the_metadata_is_tried_again(base: LoopbackHub, naps: list[float]) -> None:
    base.fail("config.json", 500, times=2, method="HEAD")
    assert Path(hf_hub_download(ID, "config.json")).read_bytes() == b"{}"
    # The first failure makes the client look into its cache, only the second one makes it wait.
    assert (len(base.asked("config.json", "HEAD")), naps) == (3, [1])


def test_a_500_on_the_bytes_is_not_tried_again(base: LoopbackHub) -> None:
    base.fail("config.json", 500, method="GET")
    with pytest.raises(HfHubHTTPError):
        hf_hub_download(ID, "config.json")


def test_retry_after(base: LoopbackHub, naps: list[float]) -> None:
    base.fail("config.json", 429, method="GET", headers={"Retry-After": "3"})
    assert hf_hub_download(ID, "config.json")
    assert naps == [4.0]


def test_a_dead_hub_falls_back_to_a_warm_cache(base: LoopbackHub) -> None:
    path = snapshot_download(ID)
    base.fail("", 503, times=None)
    assert snapshot_download(ID) == path
    assert hf_hub_download(ID, "config.json") == f"{path}/config.json"


def test_a_dropped_connection_does_not_fall_back_to_the_cache(base: LoopbackHub) -> None:
    path = snapshot_download(ID)
    base.drop("", times=None)
    with pytest.raises(Exception, match="disconnected"):
        snapshot_download(ID)
    base.faults.clear()
    assert snapshot_download(ID) == path


def test_a_slow_hub_falls_back_to_a_warm_cache(base: LoopbackHub) -> None:
    path = hf_hub_download(ID, "config.json")
    base.slow("config.json", 0.3)
    assert hf_hub_download(ID, "config.json", etag_timeout=0.05) == path


def test_wrong_bytes_of_the_right_length_go_unnoticed(base: LoopbackHub) -> None:
    base.corrupt("weights")
    path = Path(hf_hub_download(ID, "unet/weights.safetensors"))
    assert path.stat().st_size == len(BIG)
    assert path.read_bytes() != BIG
    # The etag is the sha256 that the bytes should have, and the name of the blob: enough to find out.
    assert path.resolve().name == hashlib.sha256(BIG).hexdigest()
    assert hf_hub_download(ID, "unet/weights.safetensors", force_download=True)
    assert path.read_bytes() == BIG


def test_too_few_bytes_are_noticed(base: LoopbackHub, hub_cache: Path) -> None:
    base.truncate("weights", after=1000)
    with pytest.raises(OSError, match="Consistency check failed"):
        hf_hub_download(ID, "unet/weights.safetensors")
    assert not list(hub_cache.rglob("*.incomplete"))
    assert hf_hub_download(ID, "unet/weights.safetensors")


def test_faults_by_pattern_and_reset(base: LoopbackHub) -> None:
    base.fail(re.compile(r"unet/.*\.json$"), 403, times=None)
    assert hf_hub_download(ID, "config.json")
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download(ID, "unet/config.json")
    base.reset()
    assert (base.requests, base.store.repositories) == ([], {})


# Offline


def test_offline_with_a_warm_cache(base: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = snapshot_download(ID, allow_patterns="*.json")
    base.requests.clear()
    assert snapshot_download(ID, allow_patterns="*.json", local_files_only=True) == path
    with pytest.raises(IncompleteSnapshotError):
        snapshot_download(ID, local_files_only=True)
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download(ID, "unet/weights.safetensors", local_files_only=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert snapshot_download(ID, allow_patterns="*.json") == path
    assert hf_hub_download(ID, "config.json") == f"{path}/config.json"
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download("someone/else")
    assert base.requests == []


def test_a_subprocess_talks_to_the_same_hub(base: LoopbackHub, hub_cache: Path) -> None:
    code = f"import huggingface_hub; print(huggingface_hub.hf_hub_download({ID!r}, 'config.json'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert hub_cache in Path(done.stdout.strip()).parents
    assert base.asked("config.json", "GET")
