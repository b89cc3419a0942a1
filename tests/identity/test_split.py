import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from piu_lora.config import SplitConfig
from piu_lora.errors import BadInput
from piu_lora.identity import Split, split_identities


def split(embeddings: int, retained: list[int], seed: int = 0, **config: float) -> Split:
    return split_identities(embeddings, retained, SplitConfig(**config), torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(
    st.integers(2, 60),
    st.lists(st.integers(0, 500), min_size=2, max_size=60, unique=True),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
    st.integers(0, 2**31 - 1),
)
def test_both_sides_are_filled_disjoint_and_complete(
    embeddings: int, retained: list[int], forget: float, retain: float, seed: int
) -> None:
    result = split(embeddings, retained, seed, forget_held_out=forget, retain_held_out=retain)
    for train, held, everyone, share in (
        (result.forget_train, result.forget_held_out, range(embeddings), forget),
        (result.retain_train, result.retain_held_out, retained, retain),
    ):
        assert train
        assert held
        assert sorted(train + held) == sorted(everyone)
        assert (train, held) == (tuple(sorted(train)), tuple(sorted(held)))
        wanted = math.floor(share * len(everyone))
        assert len(held) == wanted or (wanted, len(held)) == (0, 1)


def test_the_papers_shares() -> None:
    result = split(20, list(range(100)))
    assert [
        len(rows)
        for rows in (result.forget_train, result.forget_held_out, result.retain_train, result.retain_held_out)
    ] == [13, 7, 90, 10]


def test_the_seed_decides() -> None:
    assert split(20, list(range(100)), seed=1) == split(20, list(range(100)), seed=1)
    assert split(20, list(range(100)), seed=1) != split(20, list(range(100)), seed=2)


def test_who_is_held_out_does_not_depend_on_a_place() -> None:
    held = [
        row
        for seed in range(300)
        for row in split(4, [10, 20, 30], seed, forget_held_out=0.25).forget_held_out
    ]
    assert all(40 < held.count(row) < 110 for row in range(4))


def test_without_held_out_embeddings_both_sides_are_everything() -> None:
    result = split(3, [7, 8], forget_held_out=0)
    assert result.forget_train == result.forget_held_out == (0, 1, 2)
    assert split(1, [7, 8], forget_held_out=0).forget_held_out == (0,)


@pytest.mark.parametrize("share", [0, 0.35, 0.99])
def test_a_single_embedding_is_on_both_sides(share: float) -> None:
    result = split(1, [7, 8], forget_held_out=share)
    assert result.forget_train == result.forget_held_out == (0,)
    assert sorted(result.retain_train + result.retain_held_out) == [7, 8]


@pytest.mark.parametrize("retained", [[], [4]])
def test_a_bank_needs_two_others(retained: list[int]) -> None:
    with pytest.raises(BadInput, match=f"the bank holds {len(retained)} other identities; at least 2"):
        split(5, retained)
