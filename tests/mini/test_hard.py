"""The shipped bank of photographs that are hard on purpose."""

import torch

from piu_lora.identity import IdentityBank
from piu_lora.model import mini
from piu_lora.model.mini.hard import HARD_ROWS, HARD_SHOTS, hard_portraits

BANK = IdentityBank.load(mini.folder().parent / "bank_hard.safetensors")


def test_people_are_as_wide_as_real_ones() -> None:
    assert BANK.geometry is not None
    assert BANK.geometry.name == "measured"
    assert 0.5 < BANK.geometry.cosines[1].mean < 0.7  # real faces: 0.60; the embedded bank: 0.93


def test_the_bank_is_what_the_renderer_makes() -> None:
    row = HARD_ROWS[0]
    faces = hard_portraits(row).float() / 255
    assert len(faces) == HARD_SHOTS
    embeddings = mini.conditioning_recognizer().embed(faces)
    assert torch.allclose(embeddings, BANK.of(f"mini-{row:04d}"), atol=5e-3)
    assert not set(HARD_ROWS) & mini.TUNED_ON
