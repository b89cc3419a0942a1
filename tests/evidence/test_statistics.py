"""Intervals over people, the paired test and Leak@k against scipy and enumeration."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from piu_lora.evidence.metrics import interval, ratio_interval
from piu_lora.evidence.statistics import (
    difference,
    estimate,
    leak_at_k,
    paired,
    share_interval,
    sign_flip_test,
)


@pytest.mark.parametrize("count", [3, 8, 12])
def test_sign_flips_are_scipys_exact_permutation_test(count: int) -> None:
    values = np.random.default_rng(count).normal(0.4, 1, size=count)
    reference = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_test(values, np.arange(count)) == pytest.approx(reference.pvalue, abs=1e-12)


def test_many_sign_flips_come_close_to_scipys() -> None:
    values = np.random.default_rng(5).normal(0.25, 1, size=40)
    reference = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    )
    assert sign_flip_test(values, np.arange(40)) == pytest.approx(reference.pvalue, abs=0.015)


def test_images_of_one_person_are_flipped_together() -> None:
    """Ten equal images of each of three people say no more than three values: p is at least 2 / 2^3."""
    people = np.repeat([4, 7, 9], 10)
    assert sign_flip_test(np.ones(30), people) == pytest.approx(0.25)
    assert sign_flip_test(np.ones(30), np.arange(30)) < 0.001


def test_a_single_persons_images_are_the_units() -> None:
    assert sign_flip_test(np.ones(10), np.zeros(10)) == pytest.approx(2 / 2**10)


def test_no_difference_is_no_evidence() -> None:
    found = difference(np.array([0.5, 0.7]), np.array([0.5, 0.7]), [0, 1])
    assert found == {"mean": 0.0, "interval": [0.0, 0.0], "p": 1.0}


def test_intervals_over_people_are_scipys_bootstrap_of_their_means() -> None:
    generator = np.random.default_rng(2)
    centres = generator.normal(size=25)
    people = np.repeat(np.arange(25), 4)
    values = centres[people] + 0.05 * generator.normal(size=100)
    means = values.reshape(25, 4).mean(axis=1)
    reference = stats.bootstrap(
        (means,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    tolerance = 0.1 * (reference.high - reference.low)
    assert interval(values, people=people) == pytest.approx((reference.low, reference.high), abs=tolerance)
    apart = interval(values)
    assert apart[1] - apart[0] < 0.7 * (
        reference.high - reference.low
    )  # images taken for independent draws promise too much


def test_ratio_intervals_over_people_keep_people_together() -> None:
    before = np.random.default_rng(0).uniform(0.4, 0.9, size=30)
    people = np.repeat(np.arange(10), 3)
    after = before * np.repeat(np.linspace(0.1, 1, 10), 3)
    wide, narrow = ratio_interval(after, before, people=people), ratio_interval(after, before)
    assert wide[1] - wide[0] > 1.3 * (narrow[1] - narrow[0])


def test_estimate_and_paired_hold_together() -> None:
    before, after, people = np.array([0.8, 0.6, 0.7]), np.array([0.2, 0.3, 0.1]), [0, 1, 2]
    found = paired(before, after, people)
    assert found["ratio"] == pytest.approx(0.6 / 2.1)
    assert found["difference"]["mean"] == pytest.approx(-0.5)
    assert (found["n"], found["people"]) == (3, 3)
    assert estimate(after, people) == {
        "mean": pytest.approx(0.2),
        "interval": found["after_interval"],
        "n": 3,
    }
    assert paired(np.zeros(2), np.ones(2), [0, 1])["ratio"] is None


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(1, 9))
def test_leak_is_the_share_of_draws_that_hold_a_verified_image(verified: list[bool], k: int) -> None:
    found = leak_at_k(verified, k)
    if k > len(verified):
        assert found is None
        return
    draws = list(itertools.combinations(verified, k))
    assert found == pytest.approx(sum(any(draw) for draw in draws) / len(draws))


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (5, 10), (7, 7), (3, 40)])
def test_the_interval_of_a_share_is_scipys(successes: int, count: int) -> None:
    reference = stats.binomtest(successes, count).proportion_ci(method="wilson")
    assert share_interval(successes, count) == pytest.approx((reference.low, reference.high), abs=1e-4)
    assert share_interval(0, 0) == (0, 1)
