import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.attacks import ATTACKS, AttackContext
from piu_lora.attacks.denoise import denoising_loss, draw_noisy
from piu_lora.attacks.inversion import Inversion, inverted
from piu_lora.identity import IdentityBank
from piu_lora.model import encode_embeddings
from piu_lora.unlearn.baselines.pictures import latents_of
from tests.adapter.stacks import random_change
from tests.attacks.contexts import QUICK, context_of


@pytest.fixture
def context(pipe: StableDiffusionPipeline, bank: IdentityBank) -> AttackContext:
    return context_of(pipe, bank, random_change(pipe, 3, encoder=True))


@pytest.mark.parametrize("token", [False, True])
def test_without_a_budget_the_start_is_all_there_is(context: AttackContext, token: bool) -> None:
    who = context.people[0]
    config = QUICK.updated({"inversion_steps": 0})
    ((step, found),) = inverted(context, config, Inversion("", "", token=token), who, who.centre)
    assert step == 0
    assert torch.equal(found[0, : len(who.centre)], who.centre)
    assert not found[0, len(who.centre) :].any()
    assert found.shape[1] == (32 if token else len(who.centre))


@pytest.mark.parametrize("way", [Inversion("", ""), Inversion("", "", token=True)])
def test_the_loss_falls_and_a_vector_stays_a_unit_vector(context: AttackContext, way: Inversion) -> None:
    who, start = context.people[0], context.bank.centroids[30]
    config = QUICK.updated(
        {"inversion_steps": 16, "inversion_every": 16, "inversion_batch": 8, "inversion_guidance": 0.001}
    )
    batch = draw_noisy(
        context.pipe, latents_of(context.pipe, who.photos), 128, torch.Generator().manual_seed(1)
    )
    losses = []
    for _step, found in inverted(context, config, way, who, start):
        with torch.no_grad():
            condition = encode_embeddings(context.pipe.text_encoder, context.pipe.tokenizer, found).expand(
                128, -1, -1
            )
            losses.append(float(denoising_loss(context.pipe, batch, condition)[0]))
        assert way.token or float(found.norm()) == pytest.approx(1, abs=1e-5)
    assert losses[1] < losses[0]


def test_the_recognizer_guides(context: AttackContext) -> None:
    who, start = context.people[0], context.bank.centroids[30]
    plain, guided = (
        list(inverted(context, QUICK, Inversion("", "", guided=on), who, start))[-1][1]
        for on in (False, True)
    )
    assert not torch.equal(plain, guided)


def test_without_a_recognizer_the_guided_variant_is_left_out(
    context: AttackContext, pipe: StableDiffusionPipeline
) -> None:
    from dataclasses import replace

    found = ATTACKS["inversion"].run(replace(context, recognise=None), QUICK.updated({"inversion_steps": 0}))
    assert found.figures["guided"] is None
    assert "no differentiable recognizer" in found.finding
    assert found.figures["vector_own"] is not None
