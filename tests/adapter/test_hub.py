"""Fetching and uploading with the real client against the loopback Hub: every way to fail, and what a second
try does.
"""

import hashlib
import json
import shutil
import traceback
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import HfApi
from peft import PeftModel

from piu_lora.adapter import fetch_adapter, read_adapter, unload
from piu_lora.errors import BadInput, EnvironmentProblem, PiuLoraError
from piu_lora.hub import Uploaded, upload_files
from tests.adapter.stacks import forward, write_random
from tests.hub import REPO, TOKEN, LoopbackHub

pytestmark = pytest.mark.usefixtures("pauses")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pipe: StableDiffusionPipeline) -> Path:
    """Made once; every test takes a copy."""
    return write_random(pipe, tmp_path_factory.mktemp("made") / "adapter", 1).path


@pytest.fixture
def adapter_folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "adapter"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def upload(folder: Path, *, public: bool = False, repository: str = REPO) -> Uploaded:
    return upload_files(folder, list(files_of(folder)), repository, public=public, message="adapter")


def test_plain_loaders_take_what_was_uploaded(
    writer: LoopbackHub, adapter_folder: Path, pipe: StableDiffusionPipeline
) -> None:
    """The Hub id is all that stock diffusers and PEFT need; both give what the folder on disk gives."""
    upload(adapter_folder)
    bare = forward(pipe)
    pipe.load_lora_weights(str(adapter_folder), adapter_name="disk")
    wanted = forward(pipe)
    unload(pipe, ["disk"])
    pipe.load_lora_weights(REPO, adapter_name="hub")
    found = forward(pipe)
    unload(pipe, ["hub"])
    assert torch.equal(found, wanted)
    assert not torch.equal(found, bare)
    unet = pipe.unet
    try:
        pipe.unet = PeftModel.from_pretrained(unet, REPO, subfolder="peft-checkpoint")
        assert (forward(pipe) - wanted).abs().max() < 1e-6
    finally:
        pipe.unet = pipe.unet.unload()
    assert torch.equal(forward(pipe), bare)


def test_only_the_named_files_are_sent(writer: LoopbackHub, adapter_folder: Path) -> None:
    (adapter_folder / "[notes].txt").write_text("kept")
    (adapter_folder / "n.txt").write_text("left out: no pattern of the name above")
    upload_files(adapter_folder, ["README.md", "[notes].txt"], REPO, public=False, message="m")
    assert set(writer.files(REPO)) - {".gitattributes"} == {"README.md", "[notes].txt"}


def test_unchanged_files_make_no_commit_and_changed_ones_do(
    writer: LoopbackHub, adapter_folder: Path
) -> None:
    first = upload(adapter_folder)
    commits = len(writer.commits(REPO))
    again = upload(adapter_folder)
    assert again == Uploaded(first.url, first.commit, changed=False)
    assert len(writer.commits(REPO)) == commits
    (adapter_folder / "README.md").write_text("---\nlicense: mit\n---\nanother card")
    assert upload(adapter_folder).changed
    assert len(writer.commits(REPO)) == commits + 1


@pytest.mark.parametrize("kind", [500, 503, 429, 409, "drop"])
@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/api/models/", "GET"),
        ("/api/repos/create", "POST"),
        ("/preupload/", "POST"),
        ("/objects/batch", "POST"),
        ("/lfs/", "PUT"),
        ("/objects/verify", "POST"),
        ("/commit/", "POST"),
    ],
)
def test_a_single_failure_anywhere_is_overcome(
    writer: LoopbackHub, adapter_folder: Path, naps: list[float], kind: int | str, path: str, method: str
) -> None:
    if kind == "drop":
        writer.drop(path, times=1, method=method)
    else:
        writer.fail(path, status=int(kind), times=1, method=method)
    assert upload(adapter_folder).changed
    assert {name: writer.read(REPO, name) for name in files_of(adapter_folder)} == files_of(adapter_folder)


def test_a_lasting_failure_ends_and_a_later_push_sends_only_the_rest(
    writer: LoopbackHub, adapter_folder: Path, naps: list[float], pauses: list[float]
) -> None:
    writer.fail("/commit/", status=503, times=None)
    with pytest.raises(
        EnvironmentProblem, match=r"answers 503 for 'tester/forgotten'; run the same command again later"
    ):
        upload(adapter_folder)
    assert pauses == [1.0, 4.0]
    writer.faults.clear()
    sent = len(writer.asked("/lfs/tester", "PUT"))
    assert sent == 2
    assert upload(adapter_folder).changed
    assert len(writer.asked("/lfs/tester", "PUT")) == sent  # large files that arrived are not sent again


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"refuses your token for 'tester/forgotten': run `hf auth login`"),
        (403, r"may not write to 'tester/forgotten'"),
        (409, "somebody else is writing"),
    ],
)
@pytest.mark.parametrize("path", ["/api/repos/create", "/preupload/", "/commit/"])
def test_lasting_refusals_are_one_line(
    writer: LoopbackHub, adapter_folder: Path, status: int, message: str, path: str
) -> None:
    writer.fail(path, status=status, times=None)
    with pytest.raises(EnvironmentProblem, match=message) as caught:
        upload(adapter_folder)
    assert "\n" not in str(caught.value)


def test_a_token_that_may_only_read(
    hub: LoopbackHub, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_token(TOKEN, "tester", write=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(EnvironmentProblem, match="may not write to"):
        upload(adapter_folder)
    assert not hub.has(REPO)


def test_a_token_the_hub_never_gave(
    hub: LoopbackHub, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(EnvironmentProblem, match="refuses your token"):
        upload(adapter_folder)


@pytest.mark.parametrize("odd", [TOKEN + "\x01", TOKEN + "ü"])
def test_a_token_that_is_none_is_not_sent(
    hub: LoopbackHub, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", odd)
    with pytest.raises(EnvironmentProblem, match="characters that no token has") as caught:
        upload(adapter_folder)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert not hub.requests


@pytest.mark.parametrize("what", ["upload", "fetch"])
def test_a_hub_that_echoes_the_token_does_not_get_it_shown(
    writer: LoopbackHub, adapter_folder: Path, what: str
) -> None:
    if what == "fetch":
        writer.add_repository(REPO, files_of(adapter_folder))
    writer.fail("", status=400, times=None, message=f"bad header: Bearer {TOKEN}")
    with pytest.raises(PiuLoraError) as caught:
        upload(adapter_folder) if what == "upload" else fetch_adapter(REPO)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_offline(
    writer: LoopbackHub, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentProblem, match="HF_HUB_OFFLINE is set; unset it"):
        upload(adapter_folder)
    assert not pauses
    assert not writer.requests


@pytest.mark.parametrize("public", [True, False])
def test_visibility_is_said_and_never_changed(
    writer: LoopbackHub, adapter_folder: Path, public: bool
) -> None:
    upload(adapter_folder, public=public)
    commits = len(writer.commits(REPO))
    with pytest.raises(BadInput, match="public=True"):
        upload(adapter_folder, public=not public)
    assert HfApi().model_info(REPO).private is not public
    assert len(writer.commits(REPO)) == commits


@pytest.mark.parametrize("name", ["nobody", "a/b/c", "a/..", "../a", "a/b@main", "a b/c", ""])
def test_names_that_are_none(writer: LoopbackHub, adapter_folder: Path, name: str) -> None:
    with pytest.raises(BadInput, match="write it as USER/NAME"):
        upload(adapter_folder, repository=name)
    assert not writer.requests


@pytest.mark.parametrize("name", ["a/b/c", "a/..", "./a/b", "a/b@", "a/b@@x", "a b/c", ""])
def test_names_that_cannot_be_fetched(hub: LoopbackHub, name: str) -> None:
    with pytest.raises(BadInput, match="write it as USER/NAME"):
        fetch_adapter(name)
    assert not hub.requests


# Fetching


def test_fetch_takes_all_files_from_one_commit_and_asks_once(hub: LoopbackHub, adapter_folder: Path) -> None:
    commit = hub.add_repository(REPO, files_of(adapter_folder))
    folder = fetch_adapter(REPO)
    assert folder.name == commit
    assert read_adapter(folder).id == read_adapter(adapter_folder).id
    hub.requests.clear()
    assert fetch_adapter(f"{REPO}@{commit}") == folder
    assert not hub.requests


@pytest.mark.parametrize(
    "name",
    ["README.md", "adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors"],
)
def test_a_damaged_file_is_refused_deleted_and_mended(
    hub: LoopbackHub, adapter_folder: Path, hub_cache: Path, name: str
) -> None:
    hub.add_repository(REPO, files_of(adapter_folder))
    hub.corrupt(name, times=1)
    with pytest.raises(EnvironmentProblem, match=rf"{name}.*deleted"):
        fetch_adapter(REPO)
    assert not [path for path in hub_cache.rglob(name) if path.exists()]
    read_adapter(fetch_adapter(REPO))


def test_a_damaged_receipt_is_mended_too(hub: LoopbackHub, adapter_folder: Path) -> None:
    hub.add_repository(REPO, files_of(adapter_folder))
    hub.corrupt("forget.json", times=1)
    with pytest.raises(
        EnvironmentProblem,
        match=r"forget\.json of 'tester/forgotten' arrived damaged and was deleted; pull again",
    ):
        fetch_adapter(REPO)
    read_adapter(fetch_adapter(REPO))


def test_a_receipt_damaged_in_the_cache_is_mended(hub: LoopbackHub, adapter_folder: Path) -> None:
    """Still JSON, of the same length, with another digest in it: nothing but the name of the blob tells."""
    hub.add_repository(REPO, files_of(adapter_folder))
    cached = (fetch_adapter(REPO) / "forget.json").resolve()
    digest = hashlib.sha256((adapter_folder / "README.md").read_bytes()).hexdigest()
    cached.write_text(cached.read_text().replace(digest, digest[::-1]))
    with pytest.raises(EnvironmentProblem, match="damaged and was deleted"):
        fetch_adapter(REPO)
    read_adapter(fetch_adapter(REPO))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[1, 2]"])
def test_a_receipt_that_is_none(hub: LoopbackHub, content: bytes) -> None:
    hub.add_repository(REPO, {"forget.json": content})
    with pytest.raises(BadInput, match=r"forget\.json of 'tester/forgotten'"):
        fetch_adapter(REPO)


@pytest.mark.parametrize(
    "name",
    [
        "../../../../victim",
        "/etc/hostname",
        "report/../../x",
        "C:\\x",
        "..\\x",
        "a\0b",
        "x" * 300,
        "",
        ".git/config",
        "~/x",
        "CON/x",
        "README.md\n",
        "report//x.png",
        "%2e%2e",
        "/".join("d" * 300),
    ],
)
def test_a_receipt_never_leads_out_of_its_folder(
    hub: LoopbackHub, adapter_folder: Path, tmp_path: Path, name: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    receipt = json.loads((adapter_folder / "forget.json").read_text())
    receipt["files"] = {name: "0" * 64, **receipt["files"]}
    hub.add_repository(REPO, {**files_of(adapter_folder), "forget.json": json.dumps(receipt).encode()})
    with pytest.raises(BadInput, match="no file of its folder"):
        fetch_adapter(REPO)
    assert victim.read_text() == "precious"


def test_a_cut_download_goes_on(hub: LoopbackHub, adapter_folder: Path, naps: list[float]) -> None:
    hub.add_repository(REPO, files_of(adapter_folder))
    hub.cut("pytorch_lora_weights", after=300, times=1, method="GET")
    read_adapter(fetch_adapter(REPO))


def test_private_gated_and_missing(hub: LoopbackHub, adapter_folder: Path) -> None:
    hub.add_repository("else/private", files_of(adapter_folder), private=True)
    hub.add_repository("else/gated", files_of(adapter_folder), gated=True)
    with pytest.raises(
        EnvironmentProblem, match=r"no repository 'else/private' that you can see: .*hf auth login"
    ):
        fetch_adapter("else/private")
    with pytest.raises(EnvironmentProblem, match="'else/gated' is gated"):
        fetch_adapter("else/gated")
    with pytest.raises(EnvironmentProblem, match="no repository 'else/nothing'"):
        fetch_adapter("else/nothing")


def test_a_full_disk(hub: LoopbackHub, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_repository(REPO, files_of(adapter_folder))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("piu_lora.hub.download.hf_hub_download", full)
    with pytest.raises(EnvironmentProblem, match="disk is full"):
        fetch_adapter(REPO)


def test_a_file_that_vanishes_while_it_is_pushed(
    writer: LoopbackHub, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a part of an adapter."""
    names = list(files_of(adapter_folder))
    real = HfApi.model_info

    def vanish(self: HfApi, repository: str) -> object:
        (adapter_folder / "peft-checkpoint" / "adapter_config.json").unlink(missing_ok=True)
        return real(self, repository)

    monkeypatch.setattr(HfApi, "model_info", vanish)
    with pytest.raises(BadInput, match=r"adapter_config\.json' is no longer there"):
        upload_files(adapter_folder, names, REPO, public=False, message="m")
    assert writer.files(REPO) == [".gitattributes"]
