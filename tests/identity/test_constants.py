"""Settings that follow from a recognizer's geometry."""

from dataclasses import replace
from statistics import NormalDist

import pytest

from piu_lora.identity.constants import CONSTANTS, Counts, double_cosine, value_of
from piu_lora.identity.geometry import Geometry, Impostors
from piu_lora.identity.profiles import GENERIC

SD = 0.1
# Impostors that are normal, and people whose photographs do not depend on how many are known.
NORMAL = replace(
    GENERIC,
    name="measured",
    cosines={1: GENERIC.cosines[1]},
    far={far: NormalDist(0, SD).inv_cdf(1 - far) for far in (1e-2, 1e-3, 1e-4)},
    impostors=Impostors(0.0, SD, 0.04),
)


def measured() -> Geometry:
    return NORMAL


@pytest.mark.parametrize("far", [0.2, 1e-2, 3e-3, 1e-4, 1e-6, 1e-9])
def test_a_rate_between_and_beyond_the_measured_ones(far: float) -> None:
    assert NORMAL.cosine_at(far) == pytest.approx(NormalDist(0, SD).inv_cdf(1 - far), abs=1e-6)


def test_centroids_of_more_photographs_spread_farther() -> None:
    gain = GENERIC.cosines[3].mean / GENERIC.cosines[1].mean
    assert GENERIC.cosine_at(1e-3, 3) == pytest.approx(gain * GENERIC.far[1e-3])


def test_rates_that_people_under_two_ids_spoil_do_not_count() -> None:
    spoiled = replace(NORMAL, far=NORMAL.far | {1e-5: 0.9})
    assert spoiled.cosine_at(1e-7) == pytest.approx(NORMAL.cosine_at(1e-7))


@pytest.mark.parametrize("people", [20, 1000, 100_000])
def test_about_one_stranger_passes_for_the_person(people: int) -> None:
    cosine = CONSTANTS["split.same_person"].rule(NORMAL, Counts(1, people))
    expected = people * (1 - NormalDist(0, SD).cdf(cosine))
    assert expected == pytest.approx(min(people * 1e-3, 1), rel=1e-3)
    assert value_of("split.same_person", "auto", measured, Counts(1, people)) == round(cosine, 2)


def test_false_doubles_are_rare_and_real_ones_are_found() -> None:
    for people in (100, 3000, 10_000):
        cosine = double_cosine(NORMAL, people)
        pairs = people * (people - 1) / 2
        assert pairs * (1 - NormalDist(0, SD).cdf(cosine)) == pytest.approx(0.05, rel=0.1)
    # Of real faces, people with three photographs lie at 0.8 with themselves.
    assert 0.4 < double_cosine(GENERIC, 4000, 3) < 0.6


def test_neighbours_keep_out_of_the_cone() -> None:
    for photographs in (1, 3, 10):
        counts = Counts(photographs)
        for section in ("retain", "distil"):
            low = value_of(f"{section}.neighbour_low", "auto", counts=counts)
            high = value_of(f"{section}.neighbour_high", "auto", counts=counts)
            assert low < high <= GENERIC.reach(photographs).quantile(0.02) + 5e-3


def test_a_decoy_no_longer_verifies_as_before() -> None:
    assert value_of("decoys.cosine", "auto") == pytest.approx(GENERIC.far[1e-3], abs=5e-3)


@pytest.mark.parametrize("name", CONSTANTS)
def test_what_is_set_by_hand_is_left_alone(name: str) -> None:
    def asked_for_nothing() -> Geometry:
        raise AssertionError(name)

    assert value_of(name, 0.123, asked_for_nothing) == 0.123
    assert -1 < value_of(name, "auto") < 1
