"""The adapters of the repository: complete, small, for the embedded base, and doing what their receipts say."""

from pathlib import Path

import pytest
import torch

from piu_lora import generate, load_adapter, load_base, read_adapter
from piu_lora.evidence.metrics import cosine_to
from piu_lora.model import attention_digest, mini

ROOT = Path(__file__).parent.parent.parent / "adapters"
FOLDERS = sorted(path.parent for path in ROOT.glob("*/forget.json"))


def test_there_is_one() -> None:
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_it_is_complete_small_and_ours(folder: Path) -> None:
    adapter = read_adapter(folder)
    assert adapter.receipt.base.attn2_sha256 == attention_digest(load_base("mini").unet)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1e6
    assert not list(folder.rglob("before_after.png"))  # the forgotten person's face stays with the owner


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_it_forgets_somebody_and_leaves_others_alone(folder: Path) -> None:
    """Who it forgets is not written anywhere; over a sample of the bank, most people must look as before."""
    receipt, bank = read_adapter(folder).receipt, mini.conditioning_bank()
    ism = receipt.evaluation["recognizers"]["evaluating"]["ism"]
    assert ism["forget"]["ratio"] < 0.5 < ism["random"]["ratio"]
    rows = list(range(11, 1000, 83))
    conditions = torch.stack([bank.of(bank.ids[row])[0] for row in rows])
    base = load_base("mini")
    recognizer = mini.conditioning_recognizer()

    def likeness() -> float:
        faces = generate(base, conditions, rows, steps=10, guidance=3.0)
        return float(cosine_to(recognizer.embed(faces), bank.centroids[rows]).mean())

    before = likeness()
    load_adapter(base, folder)
    assert likeness() > 0.9 * before
