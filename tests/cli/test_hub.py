"""push and pull as typed: results, refusals that repeat no secret, and the token that never shows."""

import contextlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image

from piu_lora.adapter import Entry, Ledger, read_adapter
from piu_lora.cli.app import main
from piu_lora.cli.messages import OptionFormatter
from piu_lora.identity import IdentityBank
from tests.adapter.stacks import sign, write_random
from tests.hub import REPO, TOKEN, LoopbackHub

PERSON = "person-007"


@dataclass
class Result:
    code: int
    out: str
    err: str


def piu(*arguments: object) -> Result:
    out, err, code, talk = io.StringIO(), io.StringIO(), 0, logging.StreamHandler()
    talk.setStream(err)
    talk.setFormatter(OptionFormatter("%(message)s"))
    line = mock.patch.object(sys, "argv", ["piu-lora", *map(str, arguments)])
    logging.getLogger("piu_lora").addHandler(talk)
    try:
        with line, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        logging.getLogger("piu_lora").removeHandler(talk)
    return Result(code, out.getvalue(), err.getvalue())


@pytest.fixture
def writer(
    writer: LoopbackHub, pauses: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> LoopbackHub:
    monkeypatch.chdir(tmp_path)
    return writer


@pytest.fixture
def people(bank: IdentityBank, tmp_path: Path) -> Path:
    bank.save(tmp_path / "people.bank")
    return tmp_path / "people.bank"


def add_to_card(folder: Path, text: str) -> None:
    with (folder / "README.md").open("a") as card:
        card.write(text)
    sign(folder)


def test_there_and_back(writer: LoopbackHub, adapter_folder: Path, people: Path, tmp_path: Path) -> None:
    pushed = piu("push", adapter_folder, REPO, "--identity", PERSON, "--bank", people, "--json")
    assert pushed.code == 0, pushed.err
    facts = json.loads(pushed.out)
    assert facts["changed"]
    assert set(facts["files"]) == _contents(adapter_folder).keys()
    again = piu("push", adapter_folder, REPO)
    assert f"unchanged at {writer.url}/{REPO} (commit {facts['commit'][:12]})" in again.out
    pulled = piu("pull", REPO, "--json")
    assert json.loads(pulled.out) == {
        "adapter_id": read_adapter(adapter_folder).id,
        "path": str(tmp_path / "forgotten"),
        "people": 1,
    }
    assert piu("pull", REPO).code == 2
    assert piu("pull", f"{REPO}@{facts['commit']}", "--force").code == 0
    assert (
        piu("pull", REPO, "--out", tmp_path / "elsewhere").out.strip().endswith(str(tmp_path / "elsewhere"))
    )


def test_dry_run_lists_files_and_card_without_a_token_or_a_network(
    hub: LoopbackHub, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a dry run asked the network"))
    shown = piu("push", adapter_folder, REPO, "--dry-run")
    assert shown.code == 0, shown.err
    listed, _, card = shown.out.partition("\n\n")
    sizes = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in listed.splitlines()}
    assert sizes == {name: len(content) for name, content in _contents(adapter_folder).items()}
    assert card.rstrip("\n") == (adapter_folder / "README.md").read_text().rstrip("\n")


@pytest.mark.parametrize("dry", [True, False])
def test_a_hit_lists_file_and_offset_and_repeats_nothing(
    writer: LoopbackHub, adapter_folder: Path, people: Path, dry: bool
) -> None:
    add_to_card(adapter_folder, "\nPERSON-007\n")
    offset = (adapter_folder / "README.md").read_bytes().index(b"PERSON-007")
    options = ["--dry-run"] if dry else []
    refused = piu("push", adapter_folder, REPO, "--identity", PERSON, "--bank", people, *options)
    assert refused.code == 2
    assert refused.out == ""
    assert f"README.md at byte {offset}: the identity" in refused.err
    assert PERSON not in refused.err.casefold()
    assert not writer.requests


def test_the_ledger_knows_whom_to_look_for(writer: LoopbackHub, adapter_folder: Path, people: Path) -> None:
    """Without --identity; and what is given as --identity is looked for besides."""
    add_to_card(adapter_folder, f"\n{PERSON}\n")
    unknown = piu("push", adapter_folder, REPO)
    assert unknown.code == 0
    assert "pass --identity" in unknown.err
    with Ledger() as ledger:
        ledger.add(Entry(read_adapter(adapter_folder).id, identity=PERSON, bank=str(people)))
    for given in ((), ("--identity", "person-008", "--bank", people)):
        refused = piu("push", adapter_folder, REPO, *given)
        assert refused.code == 2
        assert "the identity" in refused.err
        assert "pass --identity" not in refused.err


def test_every_member_of_a_merged_adapter_is_looked_for(
    writer: LoopbackHub, pipe: StableDiffusionPipeline, people: Path, tmp_path: Path
) -> None:
    folder = write_random(pipe, tmp_path / "merged", 9).path
    receipt = json.loads((folder / "forget.json").read_text())
    receipt["members"] = [
        {"adapter_id": f"{number:016x}", "weight": 1.0, "weights_sha256": "0" * 64} for number in (1, 2)
    ]
    (folder / "forget.json").write_text(json.dumps(receipt))
    add_to_card(folder, "\nperson-002\n")
    with Ledger() as ledger:
        ledger.add(Entry(f"{1:016x}", identity="person-001", bank=str(people)))
        half = piu("push", folder, REPO)
        assert half.code == 0
        assert f"whom adapter {2:016x} forgets is not known" in half.err
        # Itself merged of others: those are looked up in turn.
        ledger.add(Entry(f"{2:016x}", members=(f"{3:016x}",)))
        ledger.add(Entry(f"{3:016x}", identity="person-002", bank=str(people)))
    refused = piu("push", folder, REPO)
    assert refused.code == 2
    assert "README.md at byte" in refused.err


def test_a_photograph_without_a_face_pack_gives_its_texts(
    writer: LoopbackHub, adapter_folder: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIU_LORA_PACK", str(tmp_path / "no-pack"))
    photos = tmp_path / "photos" / "erika"
    photos.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(photos / "mustermann.jpg")
    clean = piu("push", adapter_folder, REPO, "--identity", photos, "--bank", people)
    assert clean.code == 0, clean.err
    assert "searched for texts only" in clean.err
    for planted in ("of Erika.", "Mustermann.JPG", str(photos)):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(adapter_folder, copy)
        add_to_card(copy, f"\n{planted}\n")
        refused = piu("push", copy, REPO, "--identity", photos, "--bank", people)
        assert (refused.code, "the source path" in refused.err) == (2, True), planted


def test_pictures_of_the_person_stay_whatever_they_are_called(
    writer: LoopbackHub, adapter_folder: Path
) -> None:
    (adapter_folder / "report").mkdir()
    for name in ("before_after.png", "loss.png"):
        Image.new("RGB", (8, 8)).save(adapter_folder / "report" / name)
    sign(adapter_folder)
    assert piu("push", adapter_folder, REPO).code == 0
    assert [name for name in writer.files(REPO) if name.startswith("report/")] == ["report/loss.png"]
    assert piu("pull", REPO).code == 0  # the receipt lists them, and they may be absent
    Image.new("RGB", (8, 8)).save(adapter_folder / "face.bin", format="PNG")
    sign(adapter_folder)
    refused = piu("push", adapter_folder, REPO)
    assert refused.code == 2
    assert "'face.bin'" in refused.err


def test_metadata_of_a_picture_is_refused_whoever_it_names(writer: LoopbackHub, adapter_folder: Path) -> None:
    (adapter_folder / "report").mkdir()
    exif = Image.Exif()
    exif[0x010E] = "anybody"
    Image.new("RGB", (8, 8)).save(adapter_folder / "report" / "loss.png", exif=exif)
    sign(adapter_folder)
    refused = piu("push", adapter_folder, REPO)
    assert refused.code == 2
    assert "report/loss.png at byte" in refused.err
    assert "image metadata" in refused.err


def test_a_pull_that_fails_leaves_what_was_there(
    writer: LoopbackHub, adapter_folder: Path, tmp_path: Path, naps: list[float]
) -> None:
    assert piu("push", adapter_folder, REPO).code == 0
    writer.corrupt("adapter_model", times=1)
    failed = piu("pull", REPO)
    assert failed.code == 3
    assert not [path for path in tmp_path.iterdir() if "forgotten" in path.name]
    assert piu("pull", REPO).code == 0
    before = _contents(tmp_path / "forgotten")
    writer.fail("", status=503, times=None)
    assert piu("pull", f"{REPO}@other", "--force").code == 3
    assert _contents(tmp_path / "forgotten") == before


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


BOTH = """
import sys, traceback
from piu_lora.cli.app import main
for arguments in (sys.argv[1:4], ["pull", sys.argv[3]]):
    sys.argv = ["piu-lora", *arguments, "--debug"]
    try:
        main()
    except Exception:
        traceback.print_exc()
"""


@pytest.mark.slow
def test_the_token_never_shows_not_even_with_debug(
    writer: LoopbackHub, adapter_folder: Path, tmp_path: Path
) -> None:
    """A process of its own, with all that it and the client log, and a Hub that refuses."""
    writer.fail("/commit/", status=403, times=None)
    writer.fail("/resolve/", status=403, times=None)
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", BOTH, "push", str(adapter_folder), REPO],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug", "PYTHONPATH": str(root)},
    )
    for refusal in ("your token may not write to", "is not in the cache, and the Hub answers 403"):
        assert refusal in done.stderr
    assert (
        "authorization: <TOKEN>" in done.stderr
    )  # the client's own log was on, and its requests carried the token
    assert TOKEN not in done.stdout + done.stderr
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
