"""People to hide the forgotten one among: who they are, what they become, and that nobody can draw them
again.
"""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora import forget
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.jobs.evaluation.evaluate import receipt_settings
from piu_lora.jobs.evaluation.scoring import plan_for
from piu_lora.jobs.request.request import ErasureRequest, open_request

SECRET = 918_273_645_546


def case_of(bank: IdentityBank, fast: ForgetConfig, **decoys: float) -> ErasureRequest:
    return open_request("person-003", bank, fast.updated({"decoys": decoys}), None)


def test_they_are_retained_people_who_are_neither_anchors_nor_held_out(
    bank: IdentityBank, fast: ForgetConfig
) -> None:
    plain, hidden = case_of(bank, fast), case_of(bank, fast, count=5, cosine=0.4, seed=SECRET)
    rows = {decoy.row for decoy in hidden.decoys}
    assert len(rows) == 5
    assert rows <= set(plain.retained.train) - set(plain.anchor_rows)
    assert set(hidden.retained.train) == set(plain.retained.train) - rows
    assert hidden.retained.held_out == plain.retained.held_out
    assert hidden.people[0].train == plain.people[0].train
    assert len(hidden.problem.targets) == 6


def test_they_become_somebody_at_the_cosine(bank: IdentityBank, fast: ForgetConfig) -> None:
    for decoy in case_of(bank, fast, count=5, cosine=0.4, seed=SECRET).decoys:
        assert float(decoy.target.anchor @ bank.centroid(decoy.row)) == pytest.approx(0.4, abs=1e-5)
        assert float(decoy.target.anchor.norm()) == pytest.approx(1, abs=1e-5)
        assert torch.equal(decoy.target.forget, bank.of(bank.ids[decoy.row]))


def test_another_seed_is_other_people_and_the_runs_seed_says_nothing(
    bank: IdentityBank, fast: ForgetConfig
) -> None:
    first, same, other = (
        {decoy.row for decoy in case_of(bank, fast.updated({"seed": seed}), count=5, seed=secret).decoys}
        for seed, secret in ((1, SECRET), (1, SECRET), (1, SECRET + 1))
    )
    assert first == same
    assert first != other


@pytest.mark.parametrize(
    ("values", "message"),
    [({"count": 2}, "need a seed that nobody else knows"), ({"count": 30, "seed": 5}, "too few to retain")],
)
def test_decoys_that_cannot_be(
    bank: IdentityBank, fast: ForgetConfig, values: dict[str, int], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        case_of(bank, fast, **values)


def test_the_receipt_says_how_many_and_not_who(
    pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig, tmp_path: Path
) -> None:
    from piu_lora.adapter import open_adapter

    config = fast.updated({"decoys": {"count": 4, "cosine": 0.5, "seed": SECRET}})
    path = forget("person-003", pipe, tmp_path / "out", bank=bank, config=config).path
    assert json.loads((path / "forget.json").read_text())["settings"]["decoys"] == {
        "count": 4,
        "cosine": 0.5,
        "seed": 0,
    }
    assert all(str(SECRET).encode() not in each.read_bytes() for each in path.rglob("*") if each.is_file())
    opened = open_adapter(path)
    assert receipt_settings(opened).decoys.count == 0
    known = receipt_settings(opened, [f"decoys.seed={SECRET}"])
    again, first = (open_request("person-003", bank, each, None).decoys for each in (known, config))
    assert [decoy.row for decoy in again] == [decoy.row for decoy in first]


def test_an_evaluation_that_knows_them_shows_what_they_lose(bank: IdentityBank, fast: ForgetConfig) -> None:
    request = case_of(bank, fast, count=3, seed=SECRET)
    plan = plan_for(request, bank.centroids)
    assert plan.groups == ("forget", "random", "nearest", "anchor", "decoy")
    assert [plan.shots[place].row for place in plan.rows_of("decoy")] == [
        decoy.row for decoy in request.decoys for _ in range(2)
    ]
    assert plan_for(case_of(bank, fast), bank.centroids).groups == ("forget", "random", "nearest", "anchor")
