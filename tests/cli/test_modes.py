"""Who may read what: every file that any command writes, whatever the umask, by the table of
docs/reference/files.md.
"""

import io
import os
import shutil
import stat
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from fastapi import UploadFile
from PIL import Image

from piu_lora.adapter import open_adapter
from piu_lora.jobs.banks.pack import DETECTOR
from piu_lora.studio.uploads import keep
from piu_lora.studio.visitors import Visitors, private_folder
from tests.cli.test_cli import piu
from tests.cli.test_people import LEAN, QUICK
from tests.hub import REPO, LoopbackHub
from tests.jobs.banks.fake_photos import FAKE_SETTINGS, FakeReader, people
from tests.jobs.banks.test_build import build
from tests.jobs.banks.test_import_arrays import arrays, write
from tests.jobs.banks.test_pack import models
from tests.jobs.releases.conftest import evaluated, stored_report  # noqa: F401
from tests.photos import PACK

ORDINARY, PRIVATE = 0o644, 0o600
# The first pattern that fits a file, below the folder where everything is written.
MODES = {
    "adapters/*/report/before_after.png": PRIVATE,
    "release/release.json": PRIVATE,
    "release/private/*": PRIVATE,
    "release/reports/*": PRIVATE,
    "release/*/report/before_after.png": PRIVATE,
    "reports/private/*": PRIVATE,
    "banks/*.png": ORDINARY,
    "banks/*": PRIVATE,
    "ledger/*": PRIVATE,
    "grid.png": PRIVATE,
    "*": ORDINARY,
}
FOLDERS = {"release/private", "release/reports", "release/members", "ledger"}  # for their owner alone
PUBLISHED = Path(__file__).parents[2] / "adapters"
SOLVED = ("closed.retained=256", "closed.near=64", "closed.mixtures=16")


@pytest.fixture(params=[0o000, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def run(*arguments: object, codes: tuple[int, ...] = (0,)) -> None:
    result = piu(*arguments)
    assert result.returncode in codes, result.stderr


def expected(name: str) -> int:
    return next(mode for pattern, mode in MODES.items() if fnmatch(name, pattern))


def make_adapters(work: Path, ledger: tuple[object, ...]) -> Path:
    """Everything that writes adapters and what is made of them."""
    adapters = work / "adapters"
    lean = (*QUICK[:-1], *LEAN[:10])
    run("forget", "--identity", "mini-0007", "--out", adapters / "one", *lean, *ledger)
    one, two = adapters / "one", next(PUBLISHED.glob("mini-piu-*"))
    run("resize", one, "--rank", 1, "--out", adapters / "small", *ledger)
    run("stack", "merge", one, two, "--out", adapters / "merged", *ledger)
    member = open_adapter(one).id
    left = ("--member", two, "--out", adapters / "left")
    run("stack", "withdraw", adapters / "merged", member, *left, *ledger)
    run("stack", "fuse", "mini", one, "--out", work / "fused")
    run("extract", "--dense", work / "fused" / "unet", "--rank", 1, "--out", adapters / "extracted", *ledger)
    run("convert", one, "--to", "kohya", "--out", work / "converted" / "one.safetensors")
    run("convert", one, "--to", "peft", "--out", work / "peft")
    run("list", adapters, "--out", work / "index.md")
    return one


def make_banks(work: Path, sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that writes banks and what is read from them."""
    banks, photos = work / "banks", people(sources / "photos")
    run("bank", "export", "mini-0001", "--out", banks / "one.npy")
    build(photos, banks / "bank.safetensors")
    run("bank", "show", banks / "bank.safetensors", "--out", banks / "cosines.png")
    found = write(sources / "arrays", arrays())
    made_by = ("--recognizer", "arcface.onnx", "--recognizer-sha256", "ab" * 32)
    run("bank", "import", found, *made_by, "--out", banks / "imported.safetensors")
    reader = FakeReader()
    reader.settings = FAKE_SETTINGS  # type: ignore[attr-defined]
    monkeypatch.setattr("piu_lora.cli.bank._reader", lambda *_: reader)
    run("bank", "build", photos, "--calibrate", banks / "eps.png")
    if PACK.is_dir():
        detector, recognizer = models()
        shutil.copytree(PACK, sources / "antelopev2")
        (sources / "antelopev2" / detector.name).rename(sources / "antelopev2" / DETECTOR)
        options = ("--antelopev2", sources / "antelopev2", "--arcface", recognizer)
        run("bank", "models", "--pack", work / "pack", *options)


@pytest.mark.slow
@pytest.mark.usefixtures("evaluated")
def test_every_file_of_every_command(
    umask: int, writer: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    ledger = ("--ledger", work / "ledger" / "ledger.sqlite")
    monkeypatch.setenv("PIU_LORA_LEDGER", str(ledger[1]))
    one = make_adapters(work, ledger)

    run("generate", "--identity", "mini-0007", "--images", 1, "--steps", 1, "--out", work / "grid.png")
    who = ("--identity", "mini-0007")
    few = LEAN[:10]
    run("evaluate", one, *who, "--out", work / "reports" / "private", "--images", *LEAN)
    run("evaluate", one, *who, "--out", work / "reports" / "public", "--public", *LEAN)
    junit = ("--junit", work / "junit.xml")
    quick = ("--attacks", "reidentify", "--set", "audit.reidentify.people=64")
    run("audit", one, *who, "--out", work / "reports" / "private", "--budget", "quick", *quick, *junit)
    run("compare", "--methods", "untouched", "--people", 1, "--seeds", 1, "--out", work / "compare", *few)

    make_banks(work, tmp_path, monkeypatch)
    run("ledger", "export", "--out", work / "ledger" / "out.json", *ledger)

    settings = [part for pair in SOLVED for part in ("--set", pair)]
    run("release", "init", "--method", "closed-encoder", "--out", work / "release", *settings)
    run("release", "add", work / "release", *who)
    run("release", "apply", work / "release", codes=(0, 1))
    run("push", one, REPO)
    run("pull", REPO, "--out", work / "adapters" / "pulled")

    wrong = []
    for path in sorted(work.rglob("*")):
        name, mode = path.relative_to(work).as_posix(), stat.S_IMODE(path.lstat().st_mode)
        wanted = expected(name) if path.is_file() else 0o700 if name in FOLDERS else 0o755
        if mode != wanted and not path.is_symlink():
            wrong.append(f"{name}: {mode:o}, not {wanted:o}")
    assert not wrong, "\n".join(wrong)
    written = {path.relative_to(work).parts[0] for path in work.rglob("*") if path.is_file()}
    assert written - {"pack"} == {
        "adapters",
        "banks",
        "compare",
        "converted",
        "fused",
        "grid.png",
        "index.md",
        "junit.xml",
        "ledger",
        "peft",
        "release",
        "reports",
    }
    shutil.rmtree(work)


def test_what_the_studio_keeps(umask: int, tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64)).save(picture, "PNG")
    with private_folder() as root:
        visitor = Visitors(root).get("k" * 32)
        keep(visitor, [UploadFile(io.BytesIO(picture.getvalue()), filename="Joanna.png")])
        (photograph,) = visitor.photographs
        folders = (root, visitor.folder, photograph.parent)
        assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
        assert stat.S_IMODE(photograph.stat().st_mode) == PRIVATE
