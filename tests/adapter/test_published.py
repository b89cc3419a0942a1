"""The adapters of the repository: complete, small, for the embedded base, and true to their receipts."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora import generate, load_adapter, load_base, read_adapter
from piu_lora.adapter import Secrets, read_lora, scan_files, unload
from piu_lora.evidence.metrics import cosine_to
from piu_lora.jobs.adapters.list import index_adapters
from piu_lora.jobs.evaluation.verify import verify_adapter
from piu_lora.model import attention_digest, mini

ROOT = Path(__file__).parent.parent.parent / "adapters"
FOLDERS = sorted(path.parent for path in ROOT.glob("*/forget.json"))
SINGLE = [folder for folder in FOLDERS if not read_adapter(folder).receipt.members]


@pytest.fixture(scope="module")
def base() -> StableDiffusionPipeline:
    return load_base("mini")


def likeness(base: StableDiffusionPipeline) -> float:
    """How like themselves a sample of the bank is drawn."""
    bank, rows = mini.conditioning_bank(), list(range(11, 1000, 83))
    conditions = torch.stack([bank.of(bank.ids[row])[0] for row in rows])
    faces = generate(base, conditions, rows, steps=10, guidance=3.0)
    return float(cosine_to(mini.conditioning_recognizer().embed(faces), bank.centroids[rows]).mean())


@pytest.fixture(scope="module")
def before(base: StableDiffusionPipeline) -> float:
    """The likeness that the base draws alone."""
    return likeness(base)


def test_three_single_ones_a_merged_one_and_one_for_other_programs() -> None:
    assert len(SINGLE) >= 3
    merged = [read_adapter(folder).receipt for folder in FOLDERS if folder not in SINGLE]
    assert any(
        {member["adapter_id"] for member in each.members} <= {read_adapter(one).id for one in SINGLE}
        for each in merged
    )
    assert list(ROOT.glob("kohya/*.safetensors"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_it_is_complete_small_and_names_nobody(folder: Path, base: StableDiffusionPipeline) -> None:
    adapter = read_adapter(folder)
    assert adapter.receipt.base.attn2_sha256 == attention_digest(base.unet)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1e6
    assert not list(folder.rglob("before_after.png"))  # the forgotten person's face stays with the owner
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert scan_files(folder, files, Secrets(texts={"an id of the bank": "mini-0"})) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_verify_finds_nothing(folder: Path, base: StableDiffusionPipeline) -> None:
    verdict = verify_adapter(folder, base)
    assert verdict.failure is None
    assert [check.name for check in verdict.checks if check.skipped] == ["figures"]


@pytest.mark.parametrize(
    "folder",
    [pytest.param(folder, marks=pytest.mark.slow if folder in SINGLE else ()) for folder in FOLDERS],
    ids=lambda path: path.name,
)
def test_it_leaves_others_alone(folder: Path, base: StableDiffusionPipeline, before: float) -> None:
    """Who it forgets is not written anywhere; over a sample of the bank, most people must look as before."""
    name = load_adapter(base, folder)
    after = likeness(base)
    unload(base, [name])
    assert after > 0.9 * before


@pytest.mark.parametrize("folder", SINGLE, ids=lambda path: path.name)
def test_receipts_say_that_somebody_is_forgotten(folder: Path) -> None:
    ratios = {
        figure.group: figure.ratio
        for figure in read_adapter(folder).receipt.figures()
        if figure.recognizer == "evaluating"
    }
    assert ratios["forget"] is not None
    assert ratios["random"] is not None
    assert ratios["forget"] < 0.5 < 0.95 < ratios["random"]


def test_the_one_for_other_programs_holds_the_same_weights() -> None:
    for path in ROOT.glob("kohya/*.safetensors"):
        adapter, lora = read_adapter(ROOT / path.stem), read_lora(path)
        assert lora.format == "kohya"
        assert lora.change.keys() == adapter.change.keys()
        assert all(torch.equal(lora.change[module].up, adapter.change[module].up) for module in lora.change)


def test_the_table_in_the_readme_is_true() -> None:
    text = (ROOT / "README.md").read_text()
    for each in index_adapters(ROOT):
        (row,) = [line for line in text.splitlines() if f"| {each['folder']} |" in line]
        assert all(f"{ratio:.3f}" in row for ratio in each["forget"] + each["retain"])
        assert f"| {each['people']} |" in row
