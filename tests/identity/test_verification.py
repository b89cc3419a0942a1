"""The calibrated threshold against numpy's order statistic, its refusals, and the streamed centroids."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank, RecognizerId, verification
from piu_lora.identity.verification import (
    PAIRS_PER_FAR,
    Threshold,
    centroid_blocks,
    far_threshold,
    far_thresholds,
)
from piu_lora.model import mini
from tests.tiny import tiny_bank


def impostors(bank: IdentityBank) -> np.ndarray:
    """Every embedding against every other identity's centroid, in double precision, ascending."""
    rows = bank.embeddings.double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = bank.labels.numpy()
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(len(bank))])
    scores = rows @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    return np.sort(scores[labels[:, None] != np.arange(len(bank))])


def made(rows: torch.Tensor, labels: torch.Tensor) -> IdentityBank:
    return IdentityBank(
        rows, labels, [f"p{number}" for number in range(int(labels.max()) + 1)], RecognizerId("made", "")
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(12, 30), st.integers(1, 4), st.floats(0.1, 0.9))
def test_threshold_is_the_order_statistic(seed: int, people: int, shots: int, far: float) -> None:
    bank = tiny_bank(people, shots, seed)
    scores = impostors(bank)
    found = far_threshold(bank, far)
    allowed = int(np.floor(far * len(scores)))
    assert found == Threshold(found.value, far, len(scores))
    assert found.value == pytest.approx(scores[len(scores) - 1 - allowed], abs=1e-6)
    assert (scores >= found.value + 1e-6).mean() <= far  # the kernel and numpy differ in the last digits


def test_threshold_counts_exactly_where_cosines_are_exact() -> None:
    """60 people on the axes of space; five share one: 20 of 3540 pairs have cosine 1, all others 0."""
    axes = torch.cat([torch.arange(56), torch.zeros(4, dtype=torch.long)])
    bank = made(torch.eye(56)[axes].repeat_interleave(2, dim=0), torch.arange(60).repeat_interleave(2))
    pairs = 120 * 59
    assert far_threshold(bank, 40 / pairs).value == np.nextafter(
        np.float32(0), np.float32(1)
    )  # all forty may pass, no zero may
    with pytest.raises(
        BadInput,
        match=r"the threshold is 1\.000, but people's own embeddings lie at 1\.000 \(median\): many are in",
    ):
        far_threshold(bank, 39 / pairs)


def test_a_bank_is_read_once_for_each_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, other = tiny_bank(20, 3, seed=1), tiny_bank(20, 3, seed=2)
    found, several, refused = far_threshold(bank, 0.2), far_thresholds(bank, [0.1, 1e-6]), []
    assert isinstance(several[1e-6], str)
    for _ in range(2):
        with pytest.raises(BadInput, match="cannot resolve") as error:
            far_threshold(bank, 1e-6)
        refused.append(str(error.value))
    with monkeypatch.context() as nothing:
        nothing.setattr(verification, "_calibrate", None)
        assert far_threshold(bank, 0.2) is found
        assert far_thresholds(bank, [0.1, 1e-6]) == several
    assert refused[0] == refused[1]
    assert far_threshold(other, 0.2) != found


def test_threshold_falls_as_the_rate_grows(bank: IdentityBank) -> None:
    values = [far_threshold(bank, far).value for far in (0.002, 0.01, 0.05, 0.2, 0.8)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 5


def test_a_sample_is_seeded_and_close_to_everybody() -> None:
    bank = mini.conditioning_bank()
    whole, part = far_threshold(bank, 1e-2), far_threshold(bank, 1e-2, max_pairs=250_000)
    assert whole.pairs == 9216 * 1023
    assert 240_000 < part.pairs <= 250_000
    assert part == far_threshold(bank, 1e-2, max_pairs=250_000)
    assert part.value != far_threshold(bank, 1e-2, max_pairs=250_000, seed=1).value
    assert part.value == pytest.approx(whole.value, abs=0.02)


def test_half_precision_and_scale_do_not_matter(bank: IdentityBank) -> None:
    scaled = made(3 * bank.embeddings.half(), bank.labels)
    assert far_threshold(scaled, 0.01).value == pytest.approx(far_threshold(bank, 0.01).value, abs=2e-3)


def test_too_few_pairs_are_refused_with_the_numbers() -> None:
    bank = tiny_bank(10, 2)  # 20 * 9 pairs
    with pytest.raises(
        BadInput,
        match=(
            r"180 impostor pairs cannot resolve a false-accept rate of 0\.001: at least 10000 are needed; add"
        ),
    ) as error:
        far_threshold(bank, 1e-3)
    assert "(it holds 10) or ask for a rate of 0.056 or more (anchor.far=...)" in str(error.value)
    assert far_threshold(bank, PAIRS_PER_FAR / 180).pairs == 180
    with pytest.raises(BadInput, match=r"^0 impostor pairs .* add people to the bank [(]it holds 1[)]$"):
        far_threshold(tiny_bank(1, 3), 0.5)
    with pytest.raises(BadInput, match="raise max_pairs"):
        far_threshold(bank, 0.1, max_pairs=50)


@pytest.mark.parametrize("far", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_out_of_range_is_refused(far: float, bank: IdentityBank) -> None:
    with pytest.raises(BadInput, match=r"false-accept rate .* is out of range: expected 0 < far < 1"):
        far_threshold(bank, far)


def test_people_under_two_ids_are_not_calibrated_on() -> None:
    """Every one of 100 people twice, by the same photographs: 1 impostor pair in 199 is a genuine one."""
    bank = tiny_bank(100, 4)
    assert far_threshold(bank, 1e-3).value < 0.8
    doubled = made(torch.cat([bank.embeddings, bank.embeddings]), torch.arange(200).repeat_interleave(4))
    with pytest.raises(BadInput, match="under two ids; see `piu-lora bank check`"):
        far_threshold(doubled, 1e-3)
    assert far_threshold(doubled, 2e-2).value < 0.8  # above the share of doubles


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 50))
def test_centroid_blocks_are_the_centroids_in_the_asked_order(seed: int, people: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 5, (people,), generator=generator)
    rows = torch.nn.functional.normalize(torch.randn(int(counts.sum()), 8, generator=generator), dim=1)
    bank = made(rows, torch.arange(people, dtype=torch.int32).repeat_interleave(counts))
    asked = torch.randint(people, (7,), generator=generator)
    blocks = list(centroid_blocks(bank, asked))
    torch.testing.assert_close(torch.cat([who for who, _ in blocks]), asked)
    torch.testing.assert_close(torch.cat([block for _, block in blocks]), bank.centroids[asked])
