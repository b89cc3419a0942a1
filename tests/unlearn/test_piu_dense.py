"""The dense yardstick and the package's objective are the same mathematics."""

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from piu_lora.config import ForgetConfig
from piu_lora.identity import normalize
from piu_lora.model import adapters_disabled, attach, encode_embeddings, read_weights, write_weights
from piu_lora.unlearn import Problem, TrainedModel
from piu_lora.unlearn.baselines.piu_dense import (
    BLOCKS,
    Batch,
    PiuDenseSettings,
    dense_loss,
    dense_step,
    frozen_copy,
    open_attention,
    teacher_targets,
    train_dense,
)
from piu_lora.unlearn.piu import PiuInputs, PiuObjective, replacement_target
from tests.tiny import WIDTH, tiny_pipeline


@dataclass
class Pair:
    """The same student twice, as LoRA and as dense weights, with one draw for both."""

    objective: PiuObjective
    draw: PiuInputs
    model: UNet2DConditionModel
    teacher: UNet2DConditionModel


def people() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = normalize(torch.randn(26, WIDTH, generator=torch.Generator().manual_seed(1)))
    return rows[:5], rows[5], rows[6:]


def make_pair(pipe: StableDiffusionPipeline, eta: float, retain_weight: float, scale: float) -> Pair:
    """``scale`` is the size of the shared random change; 0 is an untrained student."""
    base = copy.deepcopy(pipe.unet)
    config = ForgetConfig().updated(
        {"objective": {"eta": eta, "retain_weight": retain_weight}, "lora": {"rank": 2}}
    )
    attach(pipe.unet, config.lora, "test", seed=0)
    generator = torch.Generator().manual_seed(2)
    weights = {
        name: scale * torch.randn(value.shape, generator=generator) if "lora_B" in name else value
        for name, value in read_weights(pipe.unet, "test").items()
    }
    write_weights(pipe.unet, "test", weights)
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    model = TrainedModel(
        pipe.unet,
        lambda e: encode_embeddings(pipe.text_encoder, pipe.tokenizer, e),
        lambda: adapters_disabled(pipe.unet),
        schedule.add_noise,
        1000,
    )
    objective = PiuObjective(Problem.of_one(*people()), model, config)
    dense, teacher = copy.deepcopy(base), frozen_copy(base)
    open_attention(dense)
    add_delta(dense, weights)
    return Pair(objective, objective.draw(4, torch.Generator().manual_seed(5)), dense, teacher)


@torch.no_grad()
def add_delta(unet: UNet2DConditionModel, weights: dict[str, torch.Tensor]) -> None:
    for name in (key.removesuffix(".lora_A.weight") for key in weights if key.endswith(".lora_A.weight")):
        unet.get_submodule(name).weight += weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"]


def to_batch(objective: PiuObjective, draw: PiuInputs) -> Batch:
    forget, retain = objective.model.encode(draw.forget), objective.model.encode(draw.retain)
    return Batch(
        draw.forget_latents, draw.forget_times, forget, draw.retain_latents, draw.retain_times, retain
    )


@pytest.fixture
def own_pipe(tmp_path: Path) -> StableDiffusionPipeline:
    return tiny_pipeline()


@pytest.mark.parametrize("scale", [0.0, 0.5])
@pytest.mark.parametrize(("eta", "retain_weight"), [(0.0, 0.0), (1.0, 10.0), (2.5, 0.3)])
def test_loss_equals_the_package_s(
    own_pipe: StableDiffusionPipeline, eta: float, retain_weight: float, scale: float
) -> None:
    pair = make_pair(own_pipe, eta, retain_weight, scale)
    ours, terms = pair.objective.loss(pair.draw)
    dense = dense_loss(
        pair.model,
        pair.teacher,
        to_batch(pair.objective, pair.draw),
        pair.objective.anchors,
        eta,
        retain_weight,
    )
    assert dense.item() == pytest.approx(ours.item(), abs=1e-5)
    assert terms["forget"] > 1e-4  # the equality is not that of two zeros
    assert (terms["retain"] > 1e-4) == (scale > 0)


def test_targets_equal_the_package_s(own_pipe: StableDiffusionPipeline) -> None:
    pair = make_pair(own_pipe, 1.5, 10.0, 0.5)
    draw, anchor = pair.draw, pair.objective.anchors.expand(4, -1, -1)
    with torch.no_grad(), adapters_disabled(own_pipe.unet):
        at_anchor = own_pipe.unet(draw.forget_latents, draw.forget_times, anchor).sample
        at_forget = own_pipe.unet(
            draw.forget_latents, draw.forget_times, pair.objective.model.encode(draw.forget)
        ).sample
        at_retain = own_pipe.unet(
            draw.retain_latents, draw.retain_times, pair.objective.model.encode(draw.retain)
        ).sample
    forget, retain = teacher_targets(
        pair.teacher, to_batch(pair.objective, draw), pair.objective.anchors, 1.5
    )
    torch.testing.assert_close(forget, replacement_target(at_anchor, at_forget, 1.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(retain, at_retain, atol=1e-5, rtol=0)


def test_step_reports_the_mean_over_micro_batches(own_pipe: StableDiffusionPipeline) -> None:
    pair = make_pair(own_pipe, 1.0, 10.0, 0.5)
    ours, _ = pair.objective.loss(pair.draw)
    halves = iter([to_batch(pair.objective, pair.draw[:2]), to_batch(pair.objective, pair.draw[2:])])
    optimizer = torch.optim.AdamW(open_attention(pair.model), lr=1e-3)
    loss = dense_step(
        pair.model,
        pair.teacher,
        optimizer,
        lambda: next(halves),
        pair.objective.anchors,
        accumulation=2,
        eta=1.0,
        retain_weight=10.0,
    )
    assert loss == pytest.approx(ours.item(), abs=1e-5)


def test_gradients_reach_only_the_four_blocks_cross_attention(own_pipe: StableDiffusionPipeline) -> None:
    pair = make_pair(own_pipe, 1.0, 10.0, 0.5)
    before = {name: value.clone() for name, value in pair.teacher.state_dict().items()}
    dense_loss(
        pair.model, pair.teacher, to_batch(pair.objective, pair.draw), pair.objective.anchors, 1.0, 10.0
    ).backward()
    touched = {
        name
        for name, parameter in pair.model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    wanted = {
        name
        for name, _ in pair.model.named_parameters()
        if ".attn2." in name and name.split(".attentions")[0] in BLOCKS
    }
    assert touched == wanted
    assert (
        len(wanted) == 5 * 6
    )  # q, k, v, out and its bias; one layer down, one in the middle, two in each block up
    assert all(parameter.grad is None for parameter in pair.teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in pair.teacher.state_dict().items())


@pytest.mark.parametrize("lr_schedule", ["constant", "cosine"])
def test_training_changes_only_the_cross_attention_and_repeats(tmp_path: Path, lr_schedule: str) -> None:
    first, second, base = (tiny_pipeline() for _ in range(3))
    losses: list[float] = []
    settings = PiuDenseSettings(steps=2, batch=2, accumulation=2, lr=1e-3)
    run = {"seed": 3, "lr_schedule": lr_schedule}
    assert (
        train_dense(first, *people(), settings, **run, progress=lambda step, loss: losses.append(loss))
        is first
    )
    train_dense(second, *people(), settings, **run)
    trained, repeated, untouched = (pipe.unet.state_dict() for pipe in (first, second, base))
    changed = {name for name, value in trained.items() if not torch.equal(value, untouched[name])}
    assert len(losses) == 2
    assert len(changed) == 5 * 6
    assert all(".attn2." in name for name in changed)
    assert all(torch.equal(value, repeated[name]) for name, value in trained.items())


def test_training_lowers_the_loss(own_pipe: StableDiffusionPipeline) -> None:
    losses: list[float] = []
    train_dense(
        own_pipe,
        *people(),
        PiuDenseSettings(
            steps=40, batch=4, accumulation=1, lr=1e-2, weight_decay=0.0, eta=1.0, retain_weight=1.0
        ),
        seed=0,
        progress=lambda step, loss: losses.append(loss),
    )
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
