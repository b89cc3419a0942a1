from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Factors
from piu_lora.attacks import ATTACKS
from piu_lora.attacks.cone import ConeSettings, cone_conditions, deviation_conditions, radius
from piu_lora.identity import IdentityBank
from piu_lora.identity.geometry import Within
from piu_lora.identity.profiles import GENERIC
from tests.adapter.stacks import random_change
from tests.attacks.contexts import QUICK, context_of

CONE = QUICK.section_of(ConeSettings)


def test_radius() -> None:
    cosines = (1.0, 0.8, 0.5)
    assert radius(cosines, [1.0, 1.0, 1.0], 0.5) == 0
    assert radius(cosines, [0.0, 0.6, 1.0], 0.5) == pytest.approx(0.2)
    assert radius(cosines, [0.0, 0.4, 0.5], 0.5) == pytest.approx(0.5)
    assert radius(cosines, [0.0, 0.0, 0.0], 0.5) == pytest.approx(0.5)


def test_conditions_lie_where_they_should(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    context = context_of(pipe, bank, random_change(pipe, 3))
    who = context.people[0]
    around, mixed = cone_conditions(context, QUICK, who).split([3 * CONE.images, CONE.images])
    assert torch.allclose(
        around @ who.centre, torch.tensor(CONE.cosines).repeat_interleave(CONE.images), atol=1e-5
    )
    assert torch.allclose(torch.cat([around, mixed]).norm(dim=1), torch.ones(4 * CONE.images), atol=1e-5)
    # Halfway to somebody of the bank, in their plane: 2 v |m| - centre is that person again.
    doubled = torch.nn.functional.normalize(mixed / (mixed @ who.centre)[:, None] - who.centre, dim=1)
    others = torch.nn.functional.normalize(
        bank.centroids - (bank.centroids @ who.centre)[:, None] * who.centre, dim=1
    )
    assert torch.allclose((doubled @ others.T).amax(dim=1), torch.ones(len(mixed)), atol=1e-4)


def test_an_adapter_that_does_nothing_has_no_cone(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    change = {module: Factors(each.down, each.up * 0) for module, each in random_change(pipe, 3).items()}
    found = ATTACKS["cone"].run(context_of(pipe, bank, change), QUICK)
    assert found.figures["radius"] == 0
    assert found.figures["control_kept"] == 1
    drawn = {
        model: [row[3:] for row in found.rows if row[1:3] == ["forgotten", model]]
        for model in ("adapter on", "untouched base")
    }
    assert len(drawn["adapter on"]) == 8
    assert drawn["adapter on"] == drawn["untouched base"]


def test_an_adapter_that_changes_everything_has_the_largest_cone(
    pipe: StableDiffusionPipeline, bank: IdentityBank
) -> None:
    change = {module: Factors(each.down, each.up * 100) for module, each in random_change(pipe, 3).items()}
    found = ATTACKS["cone"].run(context_of(pipe, bank, change), QUICK)
    assert found.figures["radius"] == pytest.approx(0.7)
    assert found.figures["control_radius"] == pytest.approx(0.7)
    assert found.figures["verified"] == 0
    assert not found.succeeded


def test_a_radius_meets_a_limit_exactly() -> None:
    assert radius((1.0, 0.9, 0.5), [0.0, 1.0, 1.0], 0.5) == 0.1


def test_photographs_as_the_banks_people_differ(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    """A bank whose photographs differ in two directions only: the conditions leave the person in these."""
    factors = torch.zeros(2, bank.width)
    factors[0, 3] = factors[1, 5] = 1.0
    known = replace(GENERIC, name="measured", within=(within := Within(factors, 0.0)))
    known = replace(known, directions=within.draw(64, torch.Generator().manual_seed(0)))
    planted = IdentityBank(bank.embeddings, bank.labels, bank.ids, bank.recognizer, geometry=known)
    context = context_of(pipe, planted, random_change(pipe, 3))
    config = QUICK.updated({"cone": {"deviations": True}})
    who = context.people[0]
    rows = deviation_conditions(context, config, who)
    cosines = torch.tensor(CONE.cosines).repeat_interleave(CONE.images)
    assert torch.allclose(rows @ who.centre, cosines, atol=1e-5)
    across = rows - (rows @ who.centre)[:, None] * who.centre
    plane = torch.stack([factors[0], factors[1], who.centre])
    basis = torch.linalg.qr(plane.T).Q
    assert torch.allclose(across, across @ basis @ basis.T, atol=1e-5)
    found = ATTACKS["cone"].run(context, config)
    assert len([row for row in found.rows if row[1:3] == ["forgotten", "adapter on"]]) == 14
    assert "as photographs of one person differ" in str(found)
