"""Push and pull with the real client against the loopback Hub."""

import copy
import traceback
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from huggingface_hub import HfApi, ModelCard
from peft import PeftModel

from piu_lora import load_adapter
from piu_lora.adapter import Entry, Ledger, adapter_folder, read_adapter, unload
from piu_lora.errors import BadInput, EnvironmentProblem, PiuLoraError
from piu_lora.identity import IdentityBank
from piu_lora.jobs.adapters.publish import pull, push
from tests.adapter.stacks import changed, forward, sign, write_random
from tests.hub import REPO, TOKEN, LoopbackHub

pytestmark = pytest.mark.usefixtures("pauses")


@pytest.fixture
def folder(pipe: StableDiffusionPipeline, tmp_path: Path) -> Path:
    return write_random(pipe, tmp_path / "adapter", 1, encoder=True).path


def listing(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_push_and_pull(writer: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    done = push(folder, REPO)
    assert done.changed
    assert HfApi().model_info(REPO).private
    adapter = pull(REPO, tmp_path / "back")
    assert listing(tmp_path / "back") == listing(folder)
    assert adapter.id == read_adapter(folder).id
    with pytest.raises(BadInput, match="exists already"):
        pull(REPO, tmp_path / "back")
    pull(f"{REPO}@{done.commit}", tmp_path / "back", force=True)


def test_stock_loaders_take_what_was_pushed(
    writer: LoopbackHub, folder: Path, pipe: StableDiffusionPipeline
) -> None:
    push(folder, REPO)
    wanted = forward(changed(pipe, [read_adapter(folder).change], [1.0]))
    pipe.load_lora_weights(REPO, adapter_name="stock")
    stock = forward(pipe)
    unload(pipe, ["stock"])
    name = load_adapter(pipe, REPO)
    ours = forward(pipe)
    unload(pipe, [name])
    other = copy.copy(pipe)
    other.unet = PeftModel.from_pretrained(copy.deepcopy(pipe.unet), REPO, subfolder="peft-checkpoint")
    other.text_encoder = PeftModel.from_pretrained(
        copy.deepcopy(pipe.text_encoder), REPO, subfolder="peft-checkpoint/text_encoder"
    )
    for found in (stock, ours, forward(other)):
        assert (found - wanted).abs().max() < 1e-6


def test_an_unchanged_folder_makes_no_commit(writer: LoopbackHub, folder: Path) -> None:
    first = push(folder, REPO)
    again = push(folder, REPO)
    assert (again.changed, again.commit) == (False, first.commit)
    assert [commit.title for commit in writer.commits(REPO)].count(f"adapter {read_adapter(folder).id}") == 1


def test_dry_run_asks_nobody(hub: LoopbackHub, folder: Path) -> None:
    found = push(folder, REPO, dry_run=True)
    assert set(found.files) == set(listing(folder))
    assert found.card == (folder / "README.md").read_text()
    assert not hub.requests


def test_visibility_is_never_changed(writer: LoopbackHub, folder: Path) -> None:
    push(folder, REPO, public=True)
    assert not HfApi().model_info(REPO).private
    with pytest.raises(BadInput, match="exists and is public, not private; pass public=True"):
        push(folder, REPO)
    push(folder, "tester/other")
    with pytest.raises(BadInput, match="exists and is private, not public; leave public=True out"):
        push(folder, "tester/other", public=True)


def test_the_card_is_valid_metadata(writer: LoopbackHub, folder: Path) -> None:
    push(folder, REPO)
    card = ModelCard.load(REPO)
    assert card.data.library_name == "diffusers"
    assert card.data.pipeline_tag == "text-to-image"
    assert card.data.license == "mit"
    card.validate()


@pytest.mark.parametrize("place", ["README.md", "forget.json"])
@pytest.mark.parametrize("how", ["identity", "ledger"])
def test_a_folder_that_names_the_person_is_refused(
    writer: LoopbackHub, folder: Path, tmp_path: Path, bank: IdentityBank, place: str, how: str
) -> None:
    bank.save(tmp_path / "people.bank")
    content = (
        (folder / place)
        .read_text()
        .replace("another identity" if place == "README.md" else '"piu"', '"person-007"')
    )
    (folder / place).write_text(content)
    sign(folder)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add(Entry(read_adapter(folder).id, identity="person-007", bank=str(tmp_path / "people.bank")))
        given = (
            {"identity": "person-007", "bank": tmp_path / "people.bank"}
            if how == "identity"
            else {"ledger": ledger}
        )
        with pytest.raises(BadInput, match=rf"{place} at byte \d+: the identity") as caught:
            push(folder, REPO, **given)  # type: ignore[arg-type]
    assert "person-007" not in str(caught.value)
    assert not writer.requests


def test_a_planted_embedding_is_refused(
    writer: LoopbackHub, folder: Path, tmp_path: Path, bank: IdentityBank
) -> None:
    bank.save(tmp_path / "people.bank")
    (folder / "report").mkdir()
    (folder / "report" / "loss.png").write_bytes(b"\x89PNG....." + bank.of("person-007")[1].numpy().tobytes())
    sign(folder)
    with pytest.raises(BadInput, match=r"report/loss\.png at byte 9: values of the person's embedding"):
        push(folder, REPO, identity="person-007", bank=tmp_path / "people.bank")


def test_pictures_of_people_and_foreign_files_stay(writer: LoopbackHub, folder: Path, tmp_path: Path) -> None:
    (folder / "report").mkdir()
    (folder / "report" / "before_after.png").write_bytes(b"a face")
    (folder / "report" / "loss.png").write_bytes(b"a curve")
    sign(folder)
    (folder / ".DS_Store").write_text("x")
    push(folder, REPO)
    adapter = pull(REPO, tmp_path / "back")
    assert sorted(listing(adapter.path)) == sorted(
        set(listing(folder)) - {"report/before_after.png", ".DS_Store"}
    )
    (folder / "notes.txt").write_text("who it is")
    with pytest.raises(BadInput, match=r"holds 'notes\.txt', which its receipt does not list"):
        push(folder, REPO)


def test_no_token(hub: LoopbackHub, folder: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="hf auth login"):
        push(folder, REPO)


@pytest.mark.parametrize(
    ("status", "message"), [(401, "refuses your token"), (403, "may not write"), (404, "knows no")]
)
@pytest.mark.parametrize("path", ["/api/repos/create", "/preupload/", "/commit/"])
def test_refusals_say_what_to_do_and_never_show_the_token(
    writer: LoopbackHub,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    status: int,
    message: str,
    path: str,
) -> None:
    caplog.set_level("DEBUG")
    writer.fail(path, status=status, times=None)
    with pytest.raises(EnvironmentProblem, match=message) as caught:
        push(folder, REPO)
    text = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capfd.readouterr())
    assert TOKEN not in text
    assert all(TOKEN.encode() not in content for content in listing(folder).values())


@pytest.mark.parametrize("path", ["/commit/", "/preupload/", "/info/lfs/objects/batch"])
@pytest.mark.parametrize("status", [500, 503, 409])
def test_what_passes_is_tried_again(
    writer: LoopbackHub, folder: Path, naps: list[float], tmp_path: Path, path: str, status: int
) -> None:
    writer.fail(path, status=status, times=1)
    assert push(folder, REPO).changed
    pull(REPO, tmp_path / "back")


def test_a_hub_that_keeps_failing(
    writer: LoopbackHub, folder: Path, naps: list[float], pauses: list[float]
) -> None:
    writer.fail("/commit/", status=503, times=None)
    with pytest.raises(EnvironmentProblem, match="answers 503"):
        push(folder, REPO)
    assert pauses == [1.0, 4.0]
    writer.faults.clear()
    assert push(folder, REPO).changed


def test_a_cut_upload_is_resumed(
    writer: LoopbackHub, folder: Path, naps: list[float], tmp_path: Path
) -> None:
    writer.cut("/lfs/", after=500, times=1, method="PUT")
    push(folder, REPO)
    pull(REPO, tmp_path / "back")
    assert listing(tmp_path / "back") == listing(folder)


def test_a_damaged_download_is_refused_and_mended(
    writer: LoopbackHub, folder: Path, tmp_path: Path, hub_cache: Path
) -> None:
    push(folder, REPO)
    for name in ("README.md", "pytorch_lora_weights.safetensors"):
        writer.corrupt(name, times=1)
        with pytest.raises(
            EnvironmentProblem, match=rf"{name}.*(damaged|not what its receipt says).*deleted"
        ):
            pull(REPO, tmp_path / "back")
        assert not (tmp_path / "back").exists()
    pull(REPO, tmp_path / "back")
    assert listing(tmp_path / "back") == listing(folder)


def test_what_is_no_adapter(writer: LoopbackHub, tmp_path: Path) -> None:
    HfApi().create_repo("tester/empty")
    with pytest.raises(BadInput, match="holds no adapter"):
        pull("tester/empty", tmp_path / "x")
    with pytest.raises(EnvironmentProblem, match="no repository 'tester/nothing'"):
        pull("tester/nothing", tmp_path / "x")
    with pytest.raises(PiuLoraError, match="no revision 'v9'"):
        pull("tester/empty@v9", tmp_path / "x")
    with pytest.raises(BadInput, match="is no name of a repository"):
        push(write_random_for_name(tmp_path), "not a name/at all/")
    assert adapter_folder(str(tmp_path)) == tmp_path


def write_random_for_name(tmp_path: Path) -> Path:
    from tests.tiny import tiny_pipeline

    return write_random(tiny_pipeline(), tmp_path / "named", 4).path


def test_offline_with_a_warm_cache(
    writer: LoopbackHub, folder: Path, pipe: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = push(folder, REPO)
    load_adapter(pipe, f"{REPO}@{done.commit}")
    unload(pipe, [read_adapter(folder).id])
    writer.fail("", status=503, times=None)
    name = load_adapter(pipe, f"{REPO}@{done.commit}")
    unload(pipe, [name])
