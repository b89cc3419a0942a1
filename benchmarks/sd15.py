"""The UNet of Stable Diffusion 1.5, and so of Arc2Face, as shapes alone: what a step computes on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.nn.functional import mse_loss
from torch.utils.flop_counter import FlopCounterMode

from piu_lora.config import ForgetConfig
from piu_lora.model import adapters_disabled, attach
from piu_lora.model.mini.untrained import unet_of
from piu_lora.model.split_unet import SplitUNet
from piu_lora.unlearn.baselines import piu_dense
from piu_lora.unlearn.piu import ObjectiveConfig, replacement_target

__all__ = ["PAPER", "build_sd15", "meta_batch", "official_flops", "our_flops"]

PAPER = ForgetConfig()  # 400 steps of 16 x 2, lambda 10, eta 1; rank 16


def build_sd15() -> UNet2DConditionModel:
    """The UNet of Stable Diffusion 1.5, and so of Arc2Face, as shapes alone."""
    with torch.device("meta"):
        unet = unet_of((320, 640, 1280, 1280), 768, sample_size=64, layers_per_block=2, attention_head_dim=8)
    unet.set_attn_processor(AttnProcessor())  # plain products: the count depends on no attention kernel
    return unet


def official_flops(
    unet: UNet2DConditionModel, batch: piu_dense.Batch, anchor: torch.Tensor
) -> dict[str, float]:
    """Operations of ``dense_loss`` on a batch and its backward pass, the teacher's three passes apart; opens
    ``unet``'s attention.
    """
    teacher, objective = piu_dense.frozen_copy(unet), PAPER.section_of(ObjectiveConfig)
    piu_dense.open_attention(unet)
    with _counted() as targets:
        piu_dense.teacher_targets(teacher, batch, anchor, objective.eta)
    with _counted() as everything:
        piu_dense.dense_loss(unet, teacher, batch, anchor, objective.eta, objective.retain_weight).backward()
    return {
        "teacher": targets.get_total_flops(),
        "student": everything.get_total_flops() - targets.get_total_flops(),
    }


def our_flops(unet: UNet2DConditionModel, batch: piu_dense.Batch, anchor: torch.Tensor) -> dict[str, float]:
    """Operations of ``PiuObjective.loss`` on one sample and its backward pass, what runs without gradient
    apart.

    The passes are repeated here because the objective opens an autocast, which the meta device has not; a
    test holds the count against the objective's own. Attaches an adapter to ``unet``.
    """
    attach(unet, PAPER.lora, "adapter", seed=0)
    split = SplitUNet.before(unet, PAPER.lora.blocks)
    with _counted() as frozen, torch.no_grad():
        midway = split.head(
            torch.cat([batch.forget_latents, batch.retain_latents, batch.forget_latents]),
            torch.cat([batch.forget_times, batch.retain_times, batch.forget_times]),
            torch.cat([batch.forget_conditions, batch.retain_conditions, anchor]),
        )
        with adapters_disabled(unet):
            forget, retain, at_anchor = split.tail(midway)
    with _counted() as learning:
        student = split.tail(midway[:2])
        target = replacement_target(at_anchor, forget, PAPER.section_of(ObjectiveConfig).eta)
        (
            mse_loss(student[0], target)
            + PAPER.section_of(ObjectiveConfig).retain_weight * mse_loss(student[1], retain)
        ).backward()
    return {"teacher": frozen.get_total_flops(), "student": learning.get_total_flops()}


@contextmanager
def _counted() -> Iterator[FlopCounterMode]:
    with FlopCounterMode(display=False) as counter:
        yield counter


def meta_batch() -> piu_dense.Batch:
    """One forget and one retain sample."""
    latents, times = torch.empty(1, 4, 64, 64, device="meta"), torch.empty(1, dtype=torch.long, device="meta")
    condition = torch.empty(1, 77, 768, device="meta")
    return piu_dense.Batch(latents, times, condition, latents, times, condition)
