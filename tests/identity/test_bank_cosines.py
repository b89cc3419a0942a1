"""Cosines and centroids of a bank, which is read block by block."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from piu_lora.identity import IdentityBank, normalize, verification
from piu_lora.identity.verification import cosines_of_several
from tests.identity.test_bank import file as file
from tests.identity.test_bank import unequal
from tests.tiny import WIDTH, tiny_bank

SHAPES = {
    "one each": [1] * 5000,
    "one person": [7],
    "one embedding": [1],
    "one of 5000 between others": [3] * 900 + [5000] + [1] * 900,
    "one of 5000 at the end": [1] * 2500 + [5000],
    "exactly a block": [2048, 2048, 1],
    "mixed": [1 + row % 9 for row in range(3000)],
}


@pytest.mark.parametrize("shots", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_cosines_are_those_to_the_centroids(shots: list[int], dtype: torch.dtype) -> None:
    bank = unequal(shots, dtype=dtype)
    vector = normalize(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(9)))[0]
    cosines = bank.cosines(vector)
    assert (cosines.shape, cosines.dtype) == ((len(shots),), torch.float32)
    torch.testing.assert_close(cosines, bank.centroids @ vector, atol=2e-6, rtol=0)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=20), st.integers(1, 20), st.integers(0, 10**6))
def test_cosines_do_not_depend_on_the_blocks(shots: list[int], block: int, seed: int) -> None:
    bank = unequal(shots, seed=seed)
    vector = normalize(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(seed)))[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("piu_lora.identity.bank._CACHED", block)
        patch.setattr("piu_lora.identity.bank._BLOCK", block)
        cosines = bank.cosines(vector)
        centroids = bank.centroids
    torch.testing.assert_close(cosines, centroids @ vector, atol=3e-6, rtol=0)


def test_one_centroid_is_that_of_all() -> None:
    bank = unequal([1, 5, 2, 9], dtype=torch.float16)
    for row in range(4):
        torch.testing.assert_close(bank.centroid(row), bank.centroids[row], atol=1e-6, rtol=0)


def test_cosines_leave_the_bank_alone(file: Path) -> None:
    bank = IdentityBank.load(file)
    before = bank.embeddings.clone()
    bank.cosines(torch.ones(WIDTH) / WIDTH**0.5)
    assert torch.equal(bank.embeddings, before)
    assert "centroids" not in vars(bank)


def test_cosines_of_thousands_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = tiny_bank(50)
    vectors = bank.centroids[:7]
    one_by_one = torch.stack([bank.cosines(vector) for vector in vectors])
    assert torch.equal(torch.stack(list(cosines_of_several(bank, vectors))), one_by_one)
    monkeypatch.setattr(verification, "_SINGLY", 3)
    monkeypatch.setattr(verification, "_COSINES", 110)  # two at a time, one in the end
    together = list(cosines_of_several(bank, vectors))
    assert len(together) == 7
    assert torch.allclose(torch.stack(together), one_by_one, atol=1e-6)
