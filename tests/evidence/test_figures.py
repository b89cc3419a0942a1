"""A recognizer's figures on embeddings whose every cosine is known."""

import numpy as np
import pytest
import torch

from piu_lora.errors import BadInput
from piu_lora.evidence import FARS, Gallery, Measured, Plan, Shot, agreement, require_disjoint
from piu_lora.evidence.figures import far_name, figures_of
from piu_lora.identity import Threshold

WIDTH = 12
# Rows of the gallery: forgotten, anchor, two retained people, two neighbours, and two who are never drawn.
CENTROIDS = torch.eye(WIDTH)[:8]
THRESHOLDS = {0.01: Threshold(0.4, 0.01, 5000), 0.001: Threshold(0.6, 0.001, 50_000), 0.0001: "too few pairs"}


def leaning(towards: int, cosine: float, spare: int = 11) -> torch.Tensor:
    """A unit vector at a cosine with one axis, and orthogonal to everybody else."""
    row = torch.zeros(WIDTH)
    row[towards], row[spare] = cosine, (1 - cosine**2) ** 0.5
    return row


def plan() -> Plan:
    rows = (
        [("forget", 0)] * 4
        + [("random", 2), ("random", 3)]
        + [("nearest", 4), ("nearest", 5)] * 2
        + [("anchor", 1)]
        + [("more", 0)] * 4
    )
    return Plan(tuple(Shot(group, row, CENTROIDS[row], place) for place, (group, row) in enumerate(rows)))


def embedded(forgotten: list[torch.Tensor], kept: float = 0.8) -> torch.Tensor:
    """Everybody as themselves at ``kept``, the eight pictures of the forgotten person as given."""
    theirs = iter(forgotten)
    return torch.stack([next(theirs) if shot.row == 0 else leaning(shot.row, kept) for shot in plan().shots])


def gallery(**changes: object) -> Gallery:
    return Gallery(  # type: ignore[arg-type]
        "arc", lambda pictures: pictures, CENTROIDS, thresholds=THRESHOLDS, **changes
    )


BEFORE = embedded([leaning(0, 0.7)] * 8)
# After: two still verify at 0.6, one more at 0.4 only, one shows no face, four look like the anchor.
AFTER = embedded(
    [
        leaning(0, 0.65),
        leaning(0, 0.5),
        torch.zeros(WIDTH),
        leaning(1, 0.9),
        leaning(0, 0.61),
        *[leaning(1, 0.9)] * 3,
    ],
    kept=0.7,
)


def test_verification_counts_what_passes_the_threshold() -> None:
    figures = figures_of(plan(), gallery(), BEFORE, AFTER)
    strict, loose = figures["verified"]["0.001"], figures["verified"]["0.01"]
    assert strict["forget"]["before"]["mean"] == 1
    assert strict["forget"]["after"]["mean"] == 2 / 8
    assert loose["forget"]["after"]["mean"] == 3 / 8
    assert strict["forget"]["difference"]["mean"] == -6 / 8
    assert strict["forget"]["people"] == {"before": 1.0, "after": 0.0}
    assert strict["random"]["after"]["mean"] == strict["nearest"]["after"]["mean"] == 1
    assert figures["verified"]["0.0001"] is None
    assert figures["thresholds"]["0.0001"] == {"cosine": None, "pairs": None, "refused": "too few pairs"}


def test_leak_rests_on_all_images_of_the_person() -> None:
    leak = figures_of(plan(), gallery(), BEFORE, AFTER)["leak"]["0.001"]
    assert leak["1"] == {"before": 1.0, "after": pytest.approx(2 / 8)}
    assert leak["8"] == {"before": 1.0, "after": 1.0}
    assert leak["64"] == {"before": None, "after": None}


def test_likeness_and_accuracy_keep_to_the_first_images() -> None:
    figures = figures_of(plan(), gallery(), BEFORE, AFTER)
    assert figures["ism"]["forget"]["after"] == pytest.approx((0.65 + 0.5 + 0 + 0) / 4)
    assert figures["ism"]["random"]["ratio"] == pytest.approx(0.7 / 0.8)
    assert figures["after"]["acc_u"] == 0.5
    assert figures["ism"]["nearest"]["people"] == 2


def test_no_face_is_an_outcome_of_its_own() -> None:
    figures = figures_of(plan(), gallery(), BEFORE, AFTER)
    assert figures["no_face"]["forget"] == {"before": 0, "after": 1, "n": 8}
    one, other = gallery(), Gallery("other", lambda pictures: pictures, CENTROIDS, thresholds=THRESHOLDS)
    counts = agreement(plan(), Measured({"arc": AFTER, "other": BEFORE}, np.ones(len(AFTER))), [one, other])
    assert counts is not None
    assert counts["0.001"] == {"both": 2, "only": {"arc": 0, "other": 5}, "neither": 0, "no_face": 1}
    assert counts["0.0001"] is None
    assert agreement(plan(), Measured({"arc": AFTER}, np.ones(len(AFTER))), [one]) is None


def test_a_picture_without_a_face_never_verifies_even_at_a_threshold_below_nothing() -> None:
    always = Gallery(
        "yes",
        lambda pictures: pictures,
        CENTROIDS,
        thresholds={far: Threshold(-1.0, far, 10) for far in FARS},
    )
    figures = figures_of(plan(), always, BEFORE, AFTER)
    assert figures["verified"]["0.001"]["forget"]["after"]["mean"] == 7 / 8


def test_bystanders_and_where_the_images_land() -> None:
    bystanders = figures_of(plan(), gallery(), BEFORE, AFTER)["bystanders"]["0.001"]
    assert bystanders["expected"] == pytest.approx(0.001 * 7)
    assert bystanders["before"]["mean"] == 0
    assert bystanders["after"]["mean"] == 4 / 8
    assert bystanders["landing"] == {"before": 0.0, "after": 0.5, "is_anchor": True}


def test_strangers_are_counted_before() -> None:
    lookalike = BEFORE.clone()
    lookalike[4] = leaning(0, 0.9)
    assert figures_of(plan(), gallery(), lookalike, AFTER)["strangers"]["0.001"]["mean"] == 0.5
    assert figures_of(plan(), gallery(), BEFORE, AFTER)["strangers"]["0.001"]["mean"] == 0


def test_references_take_the_place_of_the_centroid() -> None:
    moved = gallery(references={0: leaning(0, 0.9, spare=10)})
    figures = figures_of(plan(), moved, BEFORE, AFTER)
    assert figures["verified"]["0.001"]["forget"]["before"]["mean"] == 1  # 0.7 * 0.9 = 0.63
    assert figures["verified"]["0.001"]["forget"]["after"]["mean"] == 0  # 0.65 * 0.9 = 0.585
    assert figures["ism"]["forget"]["before"] == pytest.approx(0.7)


def test_what_is_refused_is_null_with_a_reason() -> None:
    figures = figures_of(plan(), gallery(refused="nothing was held out"), BEFORE, AFTER)
    assert figures["verified"]["0.001"]["forget"] is None
    assert figures["verified"]["0.001"]["random"]["after"]["mean"] == 1
    assert figures["leak"]["0.001"] is None
    assert figures["references"] == {"refused": "nothing was held out"}


def test_scores_are_densities() -> None:
    scores = figures_of(plan(), gallery(), BEFORE, AFTER)["scores"]
    width = scores["bins"][1] - scores["bins"][0]
    for name in ("impostor", "forget_before", "forget_after", "retained_after"):
        assert sum(scores[name]) * width == pytest.approx(1, abs=1e-3)
    place = int((0.7 - scores["bins"][0]) / width)
    assert scores["forget_before"][place] == pytest.approx(1 / width, rel=1e-3)


def test_neighbours_show_who_looks_like_whom() -> None:
    table = figures_of(plan(), gallery(), BEFORE, AFTER)["neighbours"]
    assert table["labels"] == ["forgotten", "anchor", "near 1", "near 2"]
    assert table["before"][0] == pytest.approx([0.7, 0, 0, 0])
    assert table["after"][0] == pytest.approx([(0.65 + 0.5 + 0.61) / 8, 4 * 0.9 / 8, 0, 0], abs=1e-3)
    assert table["after"][2] == pytest.approx([0, 0, 0.7, 0])


def test_rates_as_keys() -> None:
    assert [far_name(far) for far in FARS] == ["0.01", "0.001", "0.0001"]


def test_training_references_are_refused() -> None:
    rows = torch.nn.functional.normalize(
        torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1
    )
    require_disjoint(rows[:3], rows[3:], "arc")
    with pytest.raises(BadInput, match=r"reference 2 of 3 was trained on \(arc recognizer: cosine 0\.9999"):
        require_disjoint(rows[:3], rows[[4, 1]].half().float(), "arc")


def test_an_uncalibrated_rate_says_so() -> None:
    with pytest.raises(BadInput, match="too few pairs"):
        gallery().threshold(0.0001)
    with pytest.raises(
        BadInput, match=r"the arc recognizer was not calibrated at a false-accept rate of 0\.02"
    ):
        gallery().threshold(0.02)
