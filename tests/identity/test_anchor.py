import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from piu_lora.config import AnchorConfig
from piu_lora.errors import BadInput
from piu_lora.identity import Anchor, IdentityBank, RecognizerId, choose_anchor
from piu_lora.identity.anchor import RULES

COSINES = (0.9, 0.205, 0.195, 0.3, -0.4, 0.19, 0.201, 0.05)  # row 0 is the forgotten one's double, never a candidate
ROWS = (1, 2, 3, 4, 5, 6, 7)


def circle(cosines: tuple[float, ...] = COSINES) -> torch.Tensor:
    """Unit vectors of the plane with the given cosines to (1, 0)."""
    x = torch.tensor(cosines)
    return torch.stack([x, (1 - x.square()).sqrt()], dim=1)


def choose(seed: int = 0, rows: tuple[int, ...] = ROWS, cosines: tuple[float, ...] = COSINES, **config: object) -> Anchor:
    ids = [f"p{row}" for row in range(len(cosines))]
    bank = IdentityBank(circle(cosines), torch.arange(len(cosines)), ids, RecognizerId("plane", ""))
    return choose_anchor(bank, torch.tensor([1.0, 0.0]), rows, AnchorConfig(**config), torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


def test_proximity_reaches_the_whole_band_and_nothing_else() -> None:
    assert {choose(seed).row for seed in range(40)} == {row for row in ROWS if abs(COSINES[row] - 0.2) < 0.0099} == {1, 2, 6}


@settings(deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(-1, 1), st.floats(0.01, 0.05), st.integers(0, 10**6))
def test_proximity_stays_within_the_band(seed: int, tau: float, tolerance: float, people: int) -> None:
    drawn = torch.rand(30, generator=torch.Generator().manual_seed(people)) * 2 - 1
    cosines = tuple(drawn.tolist())
    try:
        anchor = choose(seed, tuple(range(30)), cosines, tau=tau, tolerance=tolerance)
    except BadInput:
        assert all(abs(cosine - tau) >= tolerance - 1e-6 for cosine in cosines)
    else:
        assert abs(cosines[anchor.row] - tau) < tolerance + 1e-6


@pytest.mark.parametrize("rule", ["proximity", "random"])
def test_seeded_rules_repeat_themselves(rule: str) -> None:
    picks = [choose(seed, rule=rule).row for seed in range(20)]
    assert picks == [choose(seed, rule=rule).row for seed in range(20)]
    assert len(set(picks)) > 1


def test_nearest_and_farthest_are_the_extremes() -> None:
    assert choose(rule="nearest").row == max(ROWS, key=COSINES.__getitem__) == 3
    assert choose(rule="farthest").row == min(ROWS, key=COSINES.__getitem__) == 4


def test_random_reaches_every_candidate_and_no_one_else() -> None:
    assert {choose(seed, rule="random", rows=(7, 2, 5)).row for seed in range(40)} == {2, 5, 7}


@pytest.mark.parametrize("rule", [*sorted(RULES), "fixed"])
def test_the_anchor_describes_the_chosen_row(rule: str, bank: IdentityBank) -> None:
    rows = tuple(range(3, 30))
    config = AnchorConfig(rule=rule, tolerance=0.3, max_tolerance=0.3, identity="person-011")
    anchor = choose_anchor(bank, bank.centroids[0], rows, config, torch.Generator().manual_seed(1))
    assert anchor.row in rows
    torch.testing.assert_close(anchor.embedding, bank.centroids[anchor.row])
    assert anchor.cosine == pytest.approx(float(bank.centroids[0].double() @ bank.centroids[anchor.row].double()), abs=1e-6)


def test_an_empty_band_counts_who_is_near_and_says_what_to_pass() -> None:
    with pytest.raises(BadInput) as error:
        choose(tau=0.243, tolerance=0.01)
    near = [row for row in ROWS if abs(COSINES[row] - 0.243) < 0.05]
    message = str(error.value)
    assert f"no identity lies within 0.01 of anchor.tau = 0.243; {len(near)} lie within 0.05, the closest at cosine 0.205" in message
    assert "--set anchor.on_empty=widen (up to anchor.max_tolerance = 0.05)" in message
    assert "--set anchor.tolerance=" in message


def test_widen_takes_the_closest_within_its_limit() -> None:
    assert choose(tau=0.243, on_empty="widen").row == min(ROWS, key=lambda row: abs(COSINES[row] - 0.243)) == 1
    with pytest.raises(BadInput, match=r"0 lie within 0\.05, the closest at cosine 0\.300"):
        choose(tau=0.6, on_empty="widen")
    assert choose(tau=0.6, on_empty="widen", max_tolerance=0.31).row == 3


def test_widen_leaves_a_filled_band_alone() -> None:
    assert [choose(seed, on_empty="widen").row for seed in range(20)] == [choose(seed).row for seed in range(20)]


def test_fixed_takes_the_named_candidate() -> None:
    assert choose(rule="fixed", identity="p5").row == 5


@pytest.mark.parametrize("identity", ["p0", "stranger", ""])
def test_fixed_refuses_anyone_who_is_no_candidate(identity: str) -> None:
    with pytest.raises(BadInput, match=rf"anchor\.identity = '{identity}' is not a retained identity on the training side"):
        choose(rule="fixed", identity=identity)


def test_an_unknown_rule_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"unknown anchor\.rule 'closest'; known: farthest, fixed, nearest, proximity, random"):
        choose(rule="closest")
