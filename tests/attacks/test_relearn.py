import copy

import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Factors, mounted
from piu_lora.attacks import ATTACKS, AttackContext
from piu_lora.attacks.copies import attention_blocks, fused_copy
from piu_lora.attacks.denoise import denoising_loss, draw_noisy
from piu_lora.attacks.judge import Judgement
from piu_lora.attacks.relearn import FineTuning, RelearnSettings, finetuned
from piu_lora.identity import IdentityBank
from piu_lora.model import encode_embeddings
from piu_lora.unlearn.baselines.pictures import latents_of
from tests.adapter.stacks import random_change
from tests.attacks.contexts import QUICK, context_of


@pytest.fixture
def context(pipe: StableDiffusionPipeline, bank: IdentityBank) -> AttackContext:
    return context_of(pipe, bank, random_change(pipe, 3, encoder=True))


def seen(share: float) -> Judgement:
    return Judgement(("a",), (torch.zeros(4),), (torch.arange(4) < 4 * share,))


def test_when_somebody_is_back() -> None:
    run = FineTuning((0, 5, 10), (seen(0), seen(0.25), seen(0.5)), 0.5)
    assert (run.returned, run.withstood) == (10, 5)
    stayed = FineTuning((0, 5, 10), (seen(0), seen(0.25), seen(0.25)), 0.5)
    assert (stayed.returned, stayed.withstood) == (None, 10)
    there = FineTuning((0,), (seen(1),), 0.5)
    assert (there.returned, there.withstood) == (0, -1)


def test_on_the_untouched_base_nothing_needs_to_be_relearned(
    context: AttackContext, pipe: StableDiffusionPipeline, bank: IdentityBank
) -> None:
    nothing = {module: Factors(each.down, each.up * 0) for module, each in context.change.items()}
    found = ATTACKS["relearn"].run(context_of(pipe, bank, nothing), QUICK)
    assert (
        found.figures["steps_photos_1"]
        == found.figures["steps_photos_2"]
        == found.figures["steps_benign"]
        == 0
    )
    assert found.figures["withstood_photos_1"] == -1
    assert found.succeeded


@pytest.mark.slow
def test_an_adapter_that_wipes_everything_withstands_two_steps(
    context: AttackContext, pipe: StableDiffusionPipeline, bank: IdentityBank
) -> None:
    change = {module: Factors(each.down, each.up * 100) for module, each in context.change.items()}
    found = ATTACKS["relearn"].run(context_of(pipe, bank, change), QUICK)
    assert found.figures["steps_photos_2"] is None
    assert found.figures["withstood_photos_2"] == QUICK.section_of(RelearnSettings).steps[-1]
    assert not found.succeeded


def test_a_fused_copy_draws_what_the_adapter_draws(context: AttackContext) -> None:
    before = copy.deepcopy(context.pipe.unet.state_dict())
    twin = fused_copy(context.pipe, context.change)
    own = context.people[0].conditions(2)
    condition = encode_embeddings(twin.text_encoder, twin.tokenizer, own)
    latents, times = (
        torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.tensor([10, 700]),
    )
    with mounted(context.pipe, context.change), torch.no_grad():
        expected = context.pipe.unet(
            latents, times, encode_embeddings(context.pipe.text_encoder, context.pipe.tokenizer, own)
        ).sample
    assert torch.allclose(twin.unet(latents, times, condition).sample, expected, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in context.pipe.unet.state_dict().items())


def test_attention_blocks(pipe: StableDiffusionPipeline) -> None:
    assert attention_blocks(pipe.unet) == (
        "down_blocks.0",
        "down_blocks.1",
        "down_blocks.2",
        "up_blocks.1",
        "up_blocks.2",
        "up_blocks.3",
        "mid_block",
    )


def test_fine_tuning_lowers_the_loss_on_the_photographs(context: AttackContext) -> None:
    config = QUICK.updated(
        {"relearn_steps": (20,), "relearn_rank": 4, "relearn_lr": 1e-1, "relearn_batch": 8}
    )
    twin, who = fused_copy(context.pipe, context.change), context.people[0]
    frozen = {name: value.clone() for name, value in twin.unet.state_dict().items()}
    batch = draw_noisy(twin, latents_of(twin, who.photos), 64, torch.Generator().manual_seed(1))
    losses, steps = [], []
    for step in finetuned(twin, who.photos, who.conditions(2), config, torch.Generator().manual_seed(0)):
        steps.append(step)
        with torch.no_grad():
            condition = encode_embeddings(twin.text_encoder, twin.tokenizer, who.conditions(2))[batch.chosen]
            losses.append(float(denoising_loss(twin, batch, condition)[0]))
    assert steps == [0, 20]
    assert losses[1] < 0.99 * losses[0]
    now = {
        name.replace(".base_layer", ""): value
        for name, value in twin.unet.state_dict().items()
        if ".lora_" not in name
    }
    assert all(torch.equal(value, frozen[name]) for name, value in now.items())


def test_the_loss_is_the_mean_squared_error_of_the_noise(context: AttackContext) -> None:
    latents = latents_of(context.pipe, context.people[0].photos)
    batch = draw_noisy(context.pipe, latents, 4, torch.Generator().manual_seed(0))
    kept = batch.schedule.alphas_cumprod[batch.times].view(-1, 1, 1, 1)
    assert torch.allclose(
        batch.latents, kept.sqrt() * latents[batch.chosen] + (1 - kept).sqrt() * batch.noise, atol=1e-5
    )
    condition = encode_embeddings(
        context.pipe.text_encoder, context.pipe.tokenizer, context.people[0].conditions(4)
    )
    loss, predicted = denoising_loss(context.pipe, batch, condition)
    assert float(loss) == pytest.approx(float(((predicted - batch.noise) ** 2).mean()), rel=1e-6)


def test_lessons_that_need_more_photographs_than_there_are_are_not_given(context: AttackContext) -> None:
    config = QUICK.updated({"relearn_photos": (1, 7), "relearn_steps": (1,)})
    found = ATTACKS["relearn"].run(context, config)
    assert found.figures["withstood_photos_1"] is not None
    assert found.figures["withstood_photos_7"] is None
    assert found.figures["steps_photos_7"] is None
    assert "no more photographs are at hand" in found.finding
    assert not any(str(row[0]).startswith("7 photographs") for row in found.rows)
