"""Several people in one adapter."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora import forget, load_adapter
from piu_lora.adapter import Ledger, unload
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import PlannedPeople, plan_evaluation
from piu_lora.identity import IdentityBank, normalize
from piu_lora.jobs.evaluation.scoring import plan_for
from piu_lora.jobs.request.request import each_identity, open_request
from piu_lora.model import encode_embeddings
from piu_lora.unlearn import METHODS
from piu_lora.unlearn.registry import shares
from tests.unlearn.test_closed import EASY as CLOSED_EASY

WHO = ["person-003", "person-011", "person-020"]
EASY = {
    **CLOSED_EASY,
    "gate": {"rank": 4},  # the tiny encoder has 32 neurons
    "distil": {"rank": 4, "eta": 0.0, "retain_weight": 0.05, "empty_weight": 0.1},
}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_takes_several(
    method: str,
    pipe: StableDiffusionPipeline,
    bank: IdentityBank,
    fast: ForgetConfig,
    tmp_path: Path,
    own_ledger: Path,
) -> None:
    config = fast.updated({"method": method, **EASY})
    with Ledger(own_ledger) as ledger:
        result = forget(WHO, pipe, tmp_path / "out", bank=bank, config=config, ledger=ledger)
        assert [entry.identities for entry in ledger.entries()] == [WHO]
    assert result.receipt.counts == {
        "forget_train": 12,
        "forget_held_out": 6,
        "retain_train": 34,
        "retain_held_out": 3,
        "people": 3,
    }
    for path in result.path.rglob("*"):
        assert path.is_dir() or not any(who.encode() in path.read_bytes() for who in WHO)
    name = load_adapter(pipe, result.path)
    unload(pipe, [name])


@pytest.mark.slow
def test_the_edited_encoder_writes_each_ones_own_anchor(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path
) -> None:
    config = fast.updated({"method": "distil-encoder", **EASY, "anchor": {"rule": "farthest"}}).updated(
        {"train": {"start": "closed-encoder", "steps": 60, "batch": 16, "lr": 1e-2}}
    )
    request = open_request(WHO, bank, config, None)

    def distances() -> torch.Tensor:
        with torch.no_grad():
            mine, theirs = (
                encode_embeddings(pipe.text_encoder, pipe.tokenizer, each)
                for each in (request.problem.centres, request.problem.anchors)
            )
        return (mine - anchors).flatten(1).norm(dim=1) if anchors is not None else theirs

    anchors = None
    anchors = distances()
    before = distances()
    result = forget(WHO, pipe, tmp_path / "out", bank=bank, config=config)
    name = load_adapter(pipe, result.path)
    after = distances()
    unload(pipe, [name])
    assert bool((after < 0.6 * before).all()), (before, after)
    assert torch.equal(distances(), before)  # the encoder is as it was


def test_nobody_forgotten_is_retained_or_an_anchor(bank: IdentityBank, fast: ForgetConfig) -> None:
    request = open_request(WHO, bank, fast, None)
    rows = {bank.index(who) for who in WHO}
    assert set(request.forget_rows) == rows
    assert not rows & (
        set(request.retained.train) | set(request.retained.held_out) | set(request.anchor_rows)
    )
    plan = plan_for(request, bank.centroids)
    groups = {
        group: {shot.row for shot in plan.shots if shot.group == group}
        for group in ("forget", "random", "nearest", "anchor")
    }
    assert groups["forget"] == rows
    assert groups["anchor"] == set(request.anchor_rows)
    assert not rows & (groups["random"] | groups["nearest"])


def test_the_first_person_is_split_as_if_alone(bank: IdentityBank, fast: ForgetConfig) -> None:
    assert (
        open_request(WHO, bank, fast, None).people[0].train
        == open_request(WHO[0], bank, fast, None).people[0].train
    )


def test_a_list_in_a_file(tmp_path: Path) -> None:
    listed = tmp_path / "requests.txt"
    listed.write_text("# of this week\nperson-003\n\n  person-011\n")
    assert each_identity(listed) == WHO[:2]
    assert each_identity([str(listed), "person-020"]) == WHO


@pytest.mark.parametrize(
    ("given", "message"),
    [([], "names nobody"), (["a", "a"], "named twice"), ("nowhere.txt", "cannot read the list")],
)
def test_lists_that_cannot_be(given: list[str] | str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        each_identity(given)


def test_everybody_is_shown_at_least_once() -> None:
    centroids = normalize(torch.randn(60, 16, generator=torch.Generator().manual_seed(0)))
    forget = [(row, centroids[row][None]) for row in range(30)]
    config = (
        ForgetConfig()
        .updated({"evaluation": {"forget_images": 2, "anchor_images": 1, "nearest": 2}})
        .evaluation
    )
    people = PlannedPeople(forget, [50, 51], [40, 41, 42])
    plan = plan_evaluation(people, centroids, lambda row: centroids[row][None], config, 0)
    assert [shot.row for shot in plan.shots if shot.group == "forget"] == list(range(30))
    assert {shot.row for shot in plan.shots if shot.group == "anchor"} == {40, 41, 42}
    near = {shot.row for shot in plan.shots if shot.group == "nearest"}
    cosines = centroids[:30] @ centroids.T
    cosines[:, [*range(30), 40, 41, 42]] = -2
    assert set(cosines.argmax(dim=1).tolist()) <= near | set()


@pytest.mark.parametrize(("parts", "count"), [(1, 5), (3, 7), (5, 3), (4, 8)])
def test_shares_are_equal(parts: int, count: int) -> None:
    drawn = shares(parts, count, torch.Generator().manual_seed(0)).bincount(minlength=parts)
    assert int(drawn.sum()) == count
    assert int(drawn.max() - drawn.min()) <= 1
