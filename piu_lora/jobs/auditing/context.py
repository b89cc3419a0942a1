"""What attacks are given: whom an adapter forgets, a control person, photographs of both, and whoever can
judge.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Adapter
from piu_lora.attacks import AttackContext, AuditConfig, Others, ProbedIdentity, choose_control
from piu_lora.errors import BadInput
from piu_lora.evidence import Gallery
from piu_lora.identity.pictures import read_picture
from piu_lora.jobs.evaluation.scoring import REFERENCES, anchor_portraits, galleries_for, photographs_of
from piu_lora.jobs.request.request import ErasureRequest, ForgottenIdentity
from piu_lora.model import describe, generate

__all__ = ["open_attack_context"]

_OTHERS = 10  # people whose photographs the benign fine-tuning sees
_FRESH, _HELD_OUT, _DRAWN = (
    "fresh photographs",
    "held-out photographs",
    "images by the untouched base from held-out embeddings",
)


def open_attack_context(
    pipe: StableDiffusionPipeline, request: ErasureRequest, adapter: Adapter, config: AuditConfig
) -> AttackContext:
    """Everything that attacks need.

    Args:
        pipe: the bare base.
    """
    galleries = _judges(
        galleries_for(describe(pipe).family, request, anchor_portraits(pipe, request)), config.far
    )
    generator = torch.Generator().manual_seed(request.config.seed)
    away = torch.stack(
        [each for person in request.people for each in (person.target.centre, person.target.anchor)]
    )
    control = choose_control(request.bank, request.retained.held_out, away, generator)
    count = max(config.relearn_photos[-1], config.bypass_photos)
    people = tuple(
        _forgotten(pipe, request, config, place, count if place < config.people else 0) for place in range(len(request.people))
    )  # fmt: skip
    rows = [row for row in request.retained.held_out if row != control]
    shuffled = [rows[place] for place in torch.randperm(len(rows), generator=generator).tolist()][
        :_OTHERS
    ] or [control]
    photos, source = _portraits(pipe, request, config, [control], count)
    return AttackContext(
        pipe, adapter.change, people, ProbedIdentity("control", control, request.bank.of(request.bank.ids[control]), photos, source),
        Others(torch.stack([request.bank.of(request.bank.ids[row])[0] for row in shuffled]), _portraits(pipe, request, config, shuffled, 1)[0]),
        request.bank, galleries, _differentiable(pipe, request), request.config.seed,
    )  # fmt: skip


def _judges(galleries: Sequence[Gallery], far: float) -> tuple[Gallery, ...]:
    """Those who can verify the forgotten people at this rate."""
    able, reasons = [], ["no face pack is at hand; pass pack=DIR (`piu-lora bank models` makes one)"]
    for gallery in galleries:
        try:
            gallery.threshold(far)
        except BadInput as error:
            reasons.append(f"{error} (audit.far=0.01)")
            continue
        if gallery.refused:
            reasons.append(gallery.refused)
        else:
            able.append(gallery)
    if not able:
        raise BadInput(f"nobody can verify the person, so no attack can be judged: {reasons[-1]}")
    return tuple(able)


def _forgotten(
    pipe: StableDiffusionPipeline, request: ErasureRequest, config: AuditConfig, place: int, count: int
) -> ProbedIdentity:
    """A forgotten person with ``count`` photographs."""
    person, row = request.people[place], request.forget_rows[place]
    label = "forgotten" if len(request.people) == 1 else f"forgotten {place + 1}"
    embeddings = person.subject.embeddings[list(person.held_out)]
    photos, source = _photographs(pipe, request, config, person, count)
    return ProbedIdentity(label, row, embeddings, photos, source, person.anchor.embedding)


def _photographs(
    pipe: StableDiffusionPipeline, request: ErasureRequest, config: AuditConfig, person: ForgottenIdentity, count: int
) -> tuple[torch.Tensor, str]:  # fmt: skip
    size = _size(pipe)
    if not count:
        return torch.empty(0, 3, size, size), _FRESH
    # Past those that the references are made of.
    fresh = photographs_of(person.subject.row, request, REFERENCES + count)
    if fresh is not None:
        return _fitted(fresh[REFERENCES:], size), _FRESH
    if person.subject.photos and person.train != person.held_out:
        paths = [person.subject.photos[each] for each in person.held_out][:count]
        return torch.cat([_fitted(_squared(read_picture(path)), size) for path in paths]), _HELD_OUT
    return _drawn(
        pipe, person.subject.embeddings[list(person.held_out)], count, request.config.seed, config
    ), _DRAWN


def _portraits(
    pipe: StableDiffusionPipeline, request: ErasureRequest, config: AuditConfig, rows: Sequence[int], count: int
) -> tuple[torch.Tensor, str]:  # fmt: skip
    """Of people of the bank, ``count`` each: photographs where the bank is the embedded one, else drawn by
    the bare base.
    """
    fresh = [
        taken[REFERENCES:]
        for row in rows
        if (taken := photographs_of(row, request, REFERENCES + count)) is not None
    ]
    if fresh:
        return _fitted(torch.cat(fresh), _size(pipe)), _FRESH
    drawn = [
        _drawn(pipe, request.bank.of(request.bank.ids[row]), count, request.config.seed + 1 + place, config)
        for place, row in enumerate(rows)
    ]
    return torch.cat(drawn), _DRAWN


def _drawn(
    pipe: StableDiffusionPipeline, embeddings: torch.Tensor, count: int, seed: int, config: AuditConfig
) -> torch.Tensor:
    seeds = [seed * 100_003 + 60_000 + place for place in range(count)]
    conditions = embeddings[torch.arange(count) % len(embeddings)]
    images: torch.Tensor = generate(
        pipe, conditions, seeds, steps=config.steps, guidance=config.guidance, batch=config.batch
    )
    return images


def _size(pipe: StableDiffusionPipeline) -> int:
    """Edge of the base's images, in pixels."""
    factor: int = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    return int(pipe.unet.config.sample_size) * factor


def _squared(picture: Any) -> torch.Tensor:
    """The middle of a picture (h, w, 3) uint8: (1, 3, s, s) in [0, 1]."""
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    edge = min(image.shape[-2:])
    top, left = (image.shape[-2] - edge) // 2, (image.shape[-1] - edge) // 2
    return image[..., top : top + edge, left : left + edge]


def _fitted(images: torch.Tensor, size: int) -> torch.Tensor:
    if images.shape[-2:] == (size, size):
        return images
    return torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True).clamp(0, 1)


def _differentiable(
    pipe: StableDiffusionPipeline, request: ErasureRequest
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The conditioning recognizer with gradients; the embedded base has one."""
    from piu_lora.model import mini

    if describe(pipe).family.name != "mini" or request.bank.recognizer != mini.conditioning_bank().recognizer:
        return None
    from piu_lora.model.mini.differentiable import differentiable_recognizer

    return differentiable_recognizer(pipe.device)
