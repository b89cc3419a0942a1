import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Factors
from piu_lora.attacks import ATTACKS
from piu_lora.attacks.bypass import partly_unloaded, redrawn
from piu_lora.identity import IdentityBank
from tests.adapter.stacks import changed, random_change
from tests.attacks.contexts import QUICK, context_of


def only(change: dict[str, Factors], part: str, strength: float = 1.0) -> dict[str, Factors]:
    return {
        module: Factors(each.down, each.up * strength)
        for module, each in change.items()
        if module.startswith(part)
    }


def test_an_encoder_adapter_falls_to_the_unedited_encoder(
    pipe: StableDiffusionPipeline, bank: IdentityBank
) -> None:
    """Without its edit there is the untouched base, bit for bit."""
    change = only(random_change(pipe, 3, encoder=True), "text_encoder", 100)
    found = ATTACKS["bypass"].run(context_of(pipe, bank, change), QUICK)
    by_model = {row[2]: row[3:] for row in found.rows if row[0] == "own condition" and row[1] == "forgotten"}
    assert by_model["unedited encoder, edited UNet"] == by_model["untouched base"]
    assert by_model["edited encoder, unedited UNet"] == by_model["the adapter as it is"]
    assert by_model["the adapter as it is"] != by_model["untouched base"]
    assert found.figures["unedited_encoder"] == 1
    assert found.figures["adapter_on"] == 0
    assert found.succeeded
    assert "text encoder alone" in found.finding


@pytest.mark.slow
def test_each_half_of_an_adapter_is_what_it_says(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    """Against dense weights: base encoder with edited UNet, and weight -1."""
    change = random_change(pipe, 3, encoder=True)
    context = context_of(pipe, bank, change)
    own = context.people[0].conditions(QUICK.images)
    found = ATTACKS["bypass"].run(context, QUICK)
    rows = {row[2]: row[5] for row in found.rows if row[0] == "own condition" and row[1] == "forgotten"}
    for name, dense in (
        ("unedited encoder, edited UNet", changed(pipe, [only(change, "unet")], [1.0])),
        ("edited encoder, unedited UNet", changed(pipe, [only(change, "text_encoder")], [1.0])),
        ("weight -1", changed(pipe, [change], [-1.0])),
    ):
        other = context_of(dense, bank, change)
        judge = context.galleries[-1]
        cosine = float((judge.embed(other.draw(own, QUICK)) @ judge.reference(0)).mean())
        assert rows[name] == pytest.approx(cosine, abs=1e-4)


def test_what_is_partly_unloaded(pipe: StableDiffusionPipeline) -> None:
    change = random_change(pipe, 3, encoder=True)
    left = partly_unloaded(change)
    assert set(left) == {
        "without the UNet's down_blocks.2",
        "without the UNet's mid_block",
        "without the UNet's up_blocks.1",
        "without the UNet's up_blocks.2",
        "without the encoder's first half",
        "without the encoder's second half",
    }
    gone = {name: change.keys() - rest.keys() for name, rest in left.items()}
    assert all(module.startswith("unet.mid_block.") for module in gone["without the UNet's mid_block"])
    assert all(".layers.0." in module for module in gone["without the encoder's first half"])
    assert set().union(*gone.values()) == change.keys()
    # One block alone: without it there is nothing, which is tried elsewhere.
    assert partly_unloaded({module: each for module, each in change.items() if "mid_block" in module}) == {}


def test_img2img_keeps_the_more_of_a_photograph_the_weaker_it_is(
    pipe: StableDiffusionPipeline, bank: IdentityBank
) -> None:
    """The conditions are the person's embeddings, and the pipeline's own encoder encodes them."""
    context = context_of(pipe, bank, random_change(pipe, 3))
    config = QUICK.updated({"steps": 10})
    photos, own = context.people[0].photos, context.people[0].conditions(2)
    flat = [
        float((redrawn(context, config, photos, own, strength) - _through(pipe, photos)).square().mean())
        for strength in (0.1, 0.5, 1.0)
    ]
    assert flat == sorted(flat)
    assert torch.equal(redrawn(context, config, photos, own, 0.5), redrawn(context, config, photos, own, 0.5))
    assert not torch.equal(
        redrawn(context, config, photos, own, 0.5),
        redrawn(context, config, photos, bank.centroids[20:22], 0.5),
    )


@torch.no_grad()
def _through(pipe: StableDiffusionPipeline, photos: torch.Tensor) -> torch.Tensor:
    decoded = pipe.vae.decode(pipe.vae.encode(photos * 2 - 1).latent_dist.mode()).sample
    return (decoded / 2 + 0.5).clamp(0, 1)
