import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from piu_lora.config import AnchorConfig
from piu_lora.errors import BadInput
from piu_lora.identity import Anchor, IdentityBank, RecognizerId, choose_anchor
from piu_lora.identity import anchor as anchors
from piu_lora.identity.anchor import RULES
from piu_lora.identity.verification import far_threshold
from piu_lora.model import mini
from tests.tiny import tiny_bank

COSINES = (
    0.9,
    0.205,
    0.195,
    0.3,
    -0.4,
    0.1899,
    0.201,
    0.05,
)  # row 0 is the forgotten one's double, never a candidate
ROWS = (1, 2, 3, 4, 5, 6, 7)


def circle(cosines: tuple[float, ...] = COSINES) -> torch.Tensor:
    """Unit vectors of the plane with the given cosines to (1, 0)."""
    x = torch.tensor(cosines)
    return torch.stack([x, (1 - x.square()).sqrt()], dim=1)


def choose(
    seed: int = 0, rows: tuple[int, ...] = ROWS, cosines: tuple[float, ...] = COSINES, **config: object
) -> Anchor:
    ids = [f"p{row}" for row in range(len(cosines))]
    bank = IdentityBank(circle(cosines), torch.arange(len(cosines)), ids, RecognizerId("plane", ""))
    return choose_anchor(
        bank, torch.tensor([1.0, 0.0]), rows, AnchorConfig(**config), torch.Generator().manual_seed(seed)
    )  # type: ignore[arg-type]


def test_proximity_reaches_the_whole_band_and_nothing_else() -> None:
    assert (
        {choose(seed).row for seed in range(40)}
        == {row for row in ROWS if abs(COSINES[row] - 0.2) < 0.0099}
        == {1, 2, 6}
    )


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
        assert anchor.row is not None
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


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"synthetic"}))
def test_the_anchor_describes_the_chosen_row(rule: str, bank: IdentityBank) -> None:
    rows = tuple(range(3, 30))
    config = AnchorConfig(rule=rule, tolerance=0.3, max_tolerance=0.3, identity="person-011", far=0.01)
    anchor = choose_anchor(bank, bank.centroids[0], rows, config, torch.Generator().manual_seed(1))
    assert anchor.row is not None
    assert anchor.row in rows
    torch.testing.assert_close(anchor.embedding, bank.centroids[anchor.row])
    assert anchor.cosine == pytest.approx(
        float(bank.centroids[0].double() @ bank.centroids[anchor.row].double()), abs=1e-6
    )


def test_an_empty_band_counts_who_is_near_and_says_what_to_pass() -> None:
    with pytest.raises(BadInput) as error:
        choose(tau=0.243, tolerance=0.01)
    near = [row for row in ROWS if abs(COSINES[row] - 0.243) < 0.05]
    message = str(error.value)
    assert (
        f"no identity lies within 0.01 of anchor.tau = 0.243; {len(near)} lie within 0.05, the closest at"
        " cosine 0.205" in message
    )
    assert "anchor.on_empty=widen (up to anchor.max_tolerance = 0.05)" in message
    assert "anchor.tolerance=" in message


def test_widen_takes_the_closest_within_its_limit() -> None:
    assert (
        choose(tau=0.243, on_empty="widen").row == min(ROWS, key=lambda row: abs(COSINES[row] - 0.243)) == 1
    )
    with pytest.raises(BadInput, match=r"0 lie within 0\.05, the closest at cosine 0\.300"):
        choose(tau=0.6, on_empty="widen")
    assert choose(tau=0.6, on_empty="widen", max_tolerance=0.31).row == 3


def test_widen_leaves_a_filled_band_alone() -> None:
    assert [choose(seed, on_empty="widen").row for seed in range(20)] == [
        choose(seed).row for seed in range(20)
    ]


def test_fixed_takes_the_named_candidate() -> None:
    assert choose(rule="fixed", identity="p5").row == 5


@pytest.mark.parametrize("identity", ["p0", "stranger", ""])
def test_fixed_refuses_anyone_who_is_no_candidate(identity: str) -> None:
    with pytest.raises(
        BadInput, match=rf"anchor\.identity = '{identity}' is not a retained identity on the training side"
    ):
        choose(rule="fixed", identity=identity)


def test_an_unknown_rule_lists_the_known_ones() -> None:
    with pytest.raises(
        BadInput, match=r"'closest'; known: far-safe, farthest, fixed, nearest, proximity, random, synthetic"
    ):
        choose(rule="closest")


def test_rules_without_a_threshold_say_so() -> None:
    assert choose().threshold is None
    assert choose(rule="nearest").threshold is None


# Safe anchors.

PEOPLE = tuple(range(1, 1024))


def safe(
    bank: IdentityBank, rule: str, seed: int = 0, row: int = 0, rows: tuple[int, ...] = (), **config: float
) -> Anchor:
    generator = torch.Generator().manual_seed(seed)
    others = rows or tuple(other for other in range(len(bank)) if other != row)
    config = {"margin": 0.05, "band": 0.05} | config  # as the embedded base's family pins them
    return choose_anchor(bank, bank.centroid(row), others, AnchorConfig(rule=rule, **config), generator)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31 - 1), st.integers(0, 39), st.sampled_from([0.01, 0.05, 0.2]), st.floats(0, 0.3))
def test_far_safe_never_verifies(seed: int, row: int, far: float, margin: float) -> None:
    bank = tiny_bank()
    anchor = safe(bank, "far-safe", seed, row, far=far, margin=margin)
    cosines = bank.cosines(bank.centroid(row))
    ceiling = far_threshold(bank, far).value - margin
    assert anchor.threshold == far_threshold(bank, far).value
    assert anchor.row not in (None, row)
    assert anchor.cosine <= ceiling
    in_band = [other for other in range(40) if other != row and ceiling - 0.05 <= cosines[other] <= ceiling]
    below = [other for other in range(40) if other != row and cosines[other] <= ceiling]
    assert (
        anchor.row in in_band
        if in_band
        else anchor.row == max(below, key=lambda other: float(cosines[other]))
    )


def test_far_safe_reaches_its_whole_band() -> None:
    bank = mini.conditioning_bank()
    cosines, ceiling = bank.cosines(bank.centroid(0)), far_threshold(bank, 1e-3).value - 0.05
    band = {row for row in PEOPLE if ceiling - 0.05 <= cosines[row] <= ceiling}
    picks = [safe(bank, "far-safe", seed, rows=PEOPLE).row for seed in range(12)]
    assert set(picks) <= band
    assert len(set(picks)) > min(len(band), 4)
    assert picks == [safe(bank, "far-safe", seed, rows=PEOPLE).row for seed in range(12)]


def test_far_safe_refuses_when_everybody_is_too_near() -> None:
    bank = tiny_bank()
    near = int(bank.cosines(bank.centroid(0))[1:].argmax()) + 1
    with pytest.raises(
        BadInput,
        match=r"nobody of 1 candidates is safe: the threshold is .* at anchor\.far = 0\.01, .*rule=synthetic",
    ):
        safe(bank, "far-safe", rows=(near,), far=0.01, margin=0.9)


def doubled() -> IdentityBank:
    """The embedded bank, where the person in row 0 has a second id, at the end."""
    bank = mini.conditioning_bank()
    labels = torch.cat([bank.labels, torch.full((9,), 1024, dtype=torch.int32)])
    return IdentityBank(
        torch.cat([bank.embeddings, bank.embeddings[:9]]), labels, [*bank.ids, "again"], bank.recognizer
    )


def test_a_double_of_the_forgotten_person_is_no_safe_anchor() -> None:
    bank = doubled()
    assert safe(bank, "nearest").row == 1024
    for seed in range(5):
        assert safe(bank, "far-safe", seed).row != 1024
    with pytest.raises(
        BadInput, match=r"nobody of 1 candidates is safe: .* the least similar one lies at 1\.000"
    ):
        safe(bank, "far-safe", rows=(1024,))


@pytest.mark.parametrize("far", [1e-2, 1e-3])
@pytest.mark.parametrize("seed", range(4))
def test_nobody_verifies_as_a_synthetic_anchor(far: float, seed: int) -> None:
    bank, row = mini.conditioning_bank(), 17 * seed
    train = tuple(other for other in range(1024) if other != row and other % 10)
    anchor = safe(bank, "synthetic", seed, row, train, far=far)
    threshold = far_threshold(bank, far).value
    assert (anchor.row, anchor.threshold) == (None, threshold)
    cosines = (
        bank.centroids.double() @ anchor.embedding.double()
    )  # everybody, the held-out and the forgotten person as well
    assert float(cosines.max()) <= threshold - 0.05 + 1e-6
    assert anchor.cosine == pytest.approx(float(cosines[row]), abs=1e-6)
    assert float(anchor.embedding.norm()) == pytest.approx(1, abs=1e-6)
    assert anchor.embedding.dtype == torch.float32
    again = safe(bank, "synthetic", seed, row, train, far=far)
    assert torch.equal(anchor.embedding, again.embedding)
    assert not torch.equal(
        anchor.embedding, safe(bank, "synthetic", seed + 100, row, train, far=far).embedding
    )


@pytest.mark.parametrize(
    "bank", [mini.conditioning_bank(), mini.evaluating_bank()], ids=["conditioning", "evaluating"]
)
def test_synthetic_anchors_have_the_geometry_of_people(bank: IdentityBank) -> None:
    """As near to everybody on the whole, and as unevenly, as real people are."""
    real = (bank.centroids @ bank.centroids.T)[~torch.eye(1024, dtype=torch.bool)].reshape(1024, 1023)
    made = torch.stack([bank.centroids @ safe(bank, "synthetic", seed).embedding for seed in range(10)])
    assert (made.mean(dim=1) >= real.mean(dim=1).min()).all()
    assert (made.mean(dim=1) <= real.mean(dim=1).max()).all()
    low, high = real.std(dim=1).min(), real.std(dim=1).max()
    assert (made.std(dim=1) > 0.9 * low).all()
    assert (made.std(dim=1) < high).all()


def test_synthetic_keeps_off_a_forgotten_person_from_outside_the_bank() -> None:
    bank = mini.conditioning_bank()
    whole = safe(bank, "synthetic", 5)
    outsider = whole.embedding  # the very person that would have been made
    anchor = choose_anchor(
        bank, outsider, PEOPLE, AnchorConfig(rule="synthetic"), torch.Generator().manual_seed(5)
    )
    assert anchor.threshold is not None
    assert float(anchor.embedding @ outsider) == pytest.approx(anchor.cosine, abs=1e-6)
    assert anchor.cosine <= anchor.threshold - 0.05


def test_synthetic_gives_up_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors, "_ROUNDS", 3)
    with pytest.raises(
        BadInput, match=r"no synthetic anchor found in 3 rounds of 8 tries: .* still meets somebody at 0\.\d+"
    ):
        safe(mini.conditioning_bank(), "synthetic", far=0.3, margin=0.6)


@pytest.mark.parametrize("rule", ["far-safe", "synthetic"])
def test_a_tiny_bank_is_refused(rule: str) -> None:
    with pytest.raises(
        BadInput,
        match=r"9360 impostor pairs cannot resolve a false-accept rate of 0\.001: at least 10000 are needed",
    ):
        safe(tiny_bank(), rule)


@pytest.mark.parametrize(
    ("name", "value"), [("far", 0.0), ("far", 1.0), ("far", float("nan")), ("margin", -0.1), ("margin", 1.0)]
)
def test_settings_out_of_range_are_quoted(name: str, value: float) -> None:
    with pytest.raises(BadInput, match=rf"anchor\.{name} = {value} is out of range"):
        AnchorConfig(**{name: value})  # type: ignore[arg-type]
