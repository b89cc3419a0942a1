import dataclasses

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.model import (
    adapters_disabled,
    attach,
    detach,
    encode_embeddings,
    read_weights,
    trainable,
    write_weights,
)
from piu_lora.unlearn import METHODS, Problem, TrainedModel, find_method
from piu_lora.unlearn.piu import PiuObjective, replacement_target


def make_problem(bank: IdentityBank) -> Problem:
    return Problem.of_one(bank.of(bank.ids[0]), bank.centroids[1], bank.embeddings[12:])


def make_student(pipe: StableDiffusionPipeline) -> TrainedModel:
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    return TrainedModel(
        pipe.unet,
        lambda e: encode_embeddings(pipe.text_encoder, pipe.tokenizer, e),
        lambda: adapters_disabled(pipe.unet),
        schedule.add_noise,
        1000,
    )


@pytest.fixture
def objective(pipe: StableDiffusionPipeline, bank: IdentityBank, fast: ForgetConfig):
    attach(pipe.unet, fast.lora, "x", seed=0)
    generator = torch.Generator().manual_seed(3)
    write_weights(
        pipe.unet,
        "x",
        {k: 0.2 * torch.randn(v.shape, generator=generator) for k, v in read_weights(pipe.unet, "x").items()},
    )
    yield PiuObjective(make_problem(bank), make_student(pipe), fast)
    detach(pipe.unet, "x")


def test_loss_is_the_papers_formula_in_separate_passes(
    objective: PiuObjective, pipe: StableDiffusionPipeline
) -> None:
    """An independent formulation: five whole forward passes, one for each prediction of equation 5."""
    objective.eta, objective.retain_weight = 1.3, 7.0
    draw = objective.draw(6, torch.Generator().manual_seed(0))
    loss, terms = objective.loss(draw)
    z, t, c = draw.forget_latents, draw.forget_times, objective.model.encode(draw.forget)
    zr, tr, cr = draw.retain_latents, draw.retain_times, objective.model.encode(draw.retain)
    with torch.no_grad():
        with adapters_disabled(pipe.unet):
            on_forget, on_retain = pipe.unet(z, t, c).sample, pipe.unet(zr, tr, cr).sample
            on_anchor = pipe.unet(z, t, objective.anchors.expand_as(c)).sample
        target = (1 + 1.3) * on_anchor - 1.3 * on_forget
        forget = (pipe.unet(z, t, c).sample - target).square().mean()
        retain = (pipe.unet(zr, tr, cr).sample - on_retain).square().mean()
    assert float(loss) == pytest.approx(float(forget + 7.0 * retain), rel=1e-5)
    assert terms["forget"] == pytest.approx(float(forget), rel=1e-5)
    assert terms["retain"] == pytest.approx(float(retain), rel=1e-5)


def test_gradients_equal_those_of_whole_passes(
    objective: PiuObjective, pipe: StableDiffusionPipeline
) -> None:
    draw = objective.draw(4, torch.Generator().manual_seed(1))
    forget, retain = (
        objective.model.encode(draw.forget).detach(),
        objective.model.encode(draw.retain).detach(),
    )
    objective.loss(draw)[0].backward()
    lean = [parameter.grad.clone() for parameter in trainable(pipe.unet)]
    pipe.unet.zero_grad()
    with torch.no_grad(), adapters_disabled(pipe.unet):
        teacher = {
            name: pipe.unet(z, t, c).sample
            for name, z, t, c in (
                ("f", draw.forget_latents, draw.forget_times, forget),
                ("r", draw.retain_latents, draw.retain_times, retain),
                ("a", draw.forget_latents, draw.forget_times, objective.anchors.expand_as(forget)),
            )
        }
    target = replacement_target(teacher["a"], teacher["f"], objective.eta)
    student_f = pipe.unet(draw.forget_latents, draw.forget_times, forget).sample
    student_r = pipe.unet(draw.retain_latents, draw.retain_times, retain).sample
    loss = (student_f - target).square().mean() + objective.retain_weight * (
        student_r - teacher["r"]
    ).square().mean()
    loss.backward()
    whole = [parameter.grad.clone() for parameter in trainable(pipe.unet)]
    pipe.unet.zero_grad()
    assert max(float(g.abs().max()) for g in whole) > 1e-6
    for mine, theirs in zip(lean, whole, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-7)


def test_an_untrained_adapter_has_no_retain_loss(
    objective: PiuObjective, pipe: StableDiffusionPipeline
) -> None:
    write_weights(
        pipe.unet,
        "x",
        {k: v if "lora_A" in k else torch.zeros_like(v) for k, v in read_weights(pipe.unet, "x").items()},
    )
    _, terms = objective.loss(objective.draw(4, torch.Generator().manual_seed(0)))
    assert terms["retain"] < 1e-12
    assert terms["forget"] > 1e-6


def test_draw_depends_on_its_generator_alone(objective: PiuObjective) -> None:
    first, again = (objective.draw(4, torch.Generator().manual_seed(5)) for _ in range(2))
    other = objective.draw(4, torch.Generator().manual_seed(6))
    for field in dataclasses.fields(first):
        assert torch.equal(getattr(first, field.name), getattr(again, field.name))
    assert not torch.equal(first.forget_latents, other.forget_latents)


def test_neighbours_take_their_share_of_the_retain_batch(
    objective: PiuObjective, bank: IdentityBank, fast: ForgetConfig, pipe
) -> None:
    config = fast.updated({"retain": {"neighbours": 0.5, "neighbour_low": 0.95, "neighbour_high": 0.99}})
    draw = PiuObjective(objective.problem, objective.model, config).draw(8, torch.Generator().manual_seed(0))
    cosines = draw.retain @ objective.problem.centres[0]
    assert int((cosines >= 0.949).sum()) == 4


def test_real_neighbours_take_their_share_too(
    objective: PiuObjective, bank: IdentityBank, fast: ForgetConfig, pipe
) -> None:
    """Drawn from the embeddings closest to the person; without them every draw is what it was."""
    problem, model = objective.problem, objective.model
    everybody = problem.retain[torch.arange(len(problem.retain))]
    closest = (everybody @ problem.centres[0]).topk(5).indices
    assert torch.equal(problem.nearest(5)[0], closest)
    assert torch.equal(problem.nearest(5, block=7)[0], closest)
    assert problem.nearest(10_000).shape == (1, len(problem.retain))
    config = fast.updated({"retain": {"neighbours": 0.25, "near": 0.5, "near_pool": 5}})
    mixed, plain = (
        PiuObjective(problem, model, each).draw(8, torch.Generator().manual_seed(0))
        for each in (config, config.updated({"retain": {"near": 0.0}}))
    )
    changed = (mixed.retain != plain.retain).any(dim=1)
    assert int(changed.sum()) == 4
    assert all(any(torch.equal(row, other) for other in everybody[closest]) for row in mixed.retain[changed])
    assert torch.equal(mixed.retain[~changed], plain.retain[~changed])


def test_unknown_method_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"unknown method 'piuu'; known: .*piu"):
        find_method("piuu")
    assert METHODS["piu"].paper == "arXiv 2605.22311"
