"""The algebra of changes, against dense matrices in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from piu_lora.errors import BadInput
from piu_lora.model.factors import (
    Change,
    Factors,
    change_of,
    compressed,
    concatenated,
    distance,
    padded,
    state_of,
)

LAYERS = {"unet.mid_block.to_k": (6, 5), "unet.up_blocks.1.to_v": (4, 7), "text_encoder.encoder.fc2": (5, 5)}


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Factors]:
    """Random changes of random layers and ranks."""
    chosen = draw(st.sets(st.sampled_from(sorted(LAYERS)), min_size=1))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    made = {}
    for module in sorted(chosen):
        out, into = LAYERS[module]
        rank = draw(st.integers(1, 4))
        made[module] = Factors(
            torch.randn(rank, into, generator=generator), torch.randn(out, rank, generator=generator)
        )
    return made


weights = st.floats(0, 2, width=32)


def dense(change: Change) -> dict[str, torch.Tensor]:
    """Every layer as a matrix; layers that are left alone are zero."""
    return {
        module: change[module].up.double() @ change[module].down.double()
        if module in change
        else torch.zeros(shape).double()
        for module, shape in LAYERS.items()
    }


def same(one: Change, other: Change, tolerance: float = 1e-6) -> bool:
    first, second = dense(one), dense(other)
    return all(
        (first[module] - second[module]).abs().max() <= tolerance * max(float(first[module].abs().max()), 1.0)
        for module in LAYERS
    )


def recompressed(change: Change) -> dict[str, Factors]:
    return {module: compressed(factors) for module, factors in change.items()}


@given(changes(), changes(), weights, weights)
def test_merge_is_the_dense_sum(a: Change, b: Change, v: float, w: float) -> None:
    merged = dense(recompressed(concatenated([a, b], [v, w])))
    for module in LAYERS:
        wanted = v * dense(a)[module] + w * dense(b)[module]
        assert (merged[module] - wanted).abs().max() <= 1e-6 * max(float(wanted.abs().max()), 1.0)


@given(changes(), changes())
def test_merge_commutes(a: Change, b: Change) -> None:
    assert same(recompressed(concatenated([a, b], [1, 1])), recompressed(concatenated([b, a], [1, 1])))


@given(changes(), changes(), changes())
def test_merge_associates(a: Change, b: Change, c: Change) -> None:
    left = concatenated([recompressed(concatenated([a, b], [1, 1])), c], [1, 1])
    right = concatenated([a, recompressed(concatenated([b, c], [1, 1]))], [1, 1])
    assert same(recompressed(left), recompressed(right))


@given(changes(), changes())
def test_weight_zero_is_the_identity(a: Change, b: Change) -> None:
    merged = concatenated([a, b], [1, 0])
    assert merged.keys() == a.keys()
    assert all(
        torch.equal(merged[module].up, a[module].up) and torch.equal(merged[module].down, a[module].down)
        for module in a
    )


@given(changes(), changes(), weights)
def test_withdraw_undoes(a: Change, b: Change, w: float) -> None:
    """Merging anew from those who stay gives, bit for bit, what it gave before the other one came."""
    before, after = (
        recompressed(concatenated([a], [w or 1.0])),
        recompressed(concatenated([a, b], [w or 1.0, 0])),
    )
    assert all(torch.equal(before[module].up, after[module].up) for module in before)


@given(changes(), st.integers(1, 4))
def test_compression_is_the_best_of_its_rank(a: Change, rank: int) -> None:
    for module, factors in a.items():
        small, singular = compressed(factors, rank), torch.linalg.svdvals(dense(a)[module])
        error, scale = distance(factors, small)
        best = float(singular[rank]) if rank < len(singular) else 0.0
        assert small.rank <= rank
        assert error == pytest.approx(best, abs=2e-6 * float(singular[0]))
        assert scale == pytest.approx(float(singular[0]), rel=1e-6)


@given(changes(), st.floats(0.001, 0.9))
def test_tolerance_bounds_the_error(a: Change, tolerance: float) -> None:
    for factors in a.values():
        error, scale = distance(factors, compressed(factors, tolerance=tolerance))
        assert error <= tolerance * scale + 2e-6 * scale


@given(changes(), st.integers(0, 5))
def test_padding_changes_nothing(a: Change, extra: int) -> None:
    for module, factors in a.items():
        wide = padded(factors, factors.rank + extra)
        assert wide.rank == factors.rank + extra
        assert torch.equal(wide.dense(), factors.dense()) or torch.allclose(
            wide.dense(), factors.dense(), atol=1e-6
        ), module


@given(changes())
def test_state_dict_round_trip(a: Change) -> None:
    back = change_of(state_of(a), "the test")
    assert back.keys() == a.keys()
    assert all(
        torch.equal(back[module].down, a[module].down) and torch.equal(back[module].up, a[module].up)
        for module in a
    )


@given(changes())
def test_norm_is_frobenius(a: Change) -> None:
    for module, factors in a.items():
        assert factors.norm() == pytest.approx(float(torch.linalg.matrix_norm(dense(a)[module])), rel=1e-6)


def test_a_change_of_nothing_compresses_to_nothing() -> None:
    nothing = Factors(torch.zeros(3, 5), torch.zeros(6, 3))
    assert compressed(nothing).rank == 1
    assert not compressed(nothing).dense().any()
    assert distance(nothing, nothing) == (0.0, 0.0)


def test_adapters_of_different_shapes_do_not_merge() -> None:
    one = {"unet.mid_block.to_k": Factors(torch.ones(1, 5), torch.ones(6, 1))}
    other = {"unet.mid_block.to_k": Factors(torch.ones(1, 5), torch.ones(7, 1))}
    with pytest.raises(BadInput, match=r"\(6, 5\) in one, \(7, 5\) in another"):
        concatenated([one, other], [1, 1])


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"unet.a.lora_A.weight": torch.ones(1, 2)},
        {"unet.a.lora_B.weight": torch.ones(2, 2)},
        {"unet.a.lora_A.weight": torch.ones(1, 2), "unet.a.lora_B.weight": torch.ones(2, 2)},
        {"unet.a.lora_A.weight": torch.ones(2), "unet.a.lora_B.weight": torch.ones(2)},
        {"unet.a.lora_A.weight": torch.ones(0, 2), "unet.a.lora_B.weight": torch.ones(2, 0)},
        {"unet.a.lora_A.weight": torch.ones(1, 2).int(), "unet.a.lora_B.weight": torch.ones(2, 1).int()},
        {"unet.a.lora_A.weight": torch.ones(1, 2), "unet.a.lora_B.weight": torch.full((2, 1), float("inf"))},
        {"vae.a.lora_A.weight": torch.ones(1, 2), "vae.a.lora_B.weight": torch.ones(2, 1)},
    ],
)
def test_unusable_state_dicts(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(BadInput, match="the test"):
        change_of(state, "the test")
