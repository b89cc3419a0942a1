"""What attacks are given: whom an adapter forgets, a control person, photographs of both, and whoever can
judge.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from piu_lora.adapter import Change
from piu_lora.attacks import AttackContext, AuditConfig, Others, ProbedIdentity, choose_control
from piu_lora.errors import BadInput
from piu_lora.evidence import Gallery
from piu_lora.identity.pictures import read_picture
from piu_lora.jobs.evaluation.images import Sampling, generate_images
from piu_lora.jobs.evaluation.scoring import REFERENCES, galleries_for, photographs_of
from piu_lora.jobs.request.request import ErasureRequest, ForgottenIdentity
from piu_lora.jobs.request.session import Session

__all__ = ["open_attack_context"]

_OTHERS = 10  # people whose photographs the benign fine-tuning sees
_FRESH, _HELD_OUT, _GENERATED = (
    "fresh photographs",
    "held-out photographs",
    "images by the untouched base from held-out embeddings",
)


def open_attack_context(
    session: Session, request: ErasureRequest, change: Change, config: AuditConfig
) -> AttackContext:
    """Everything that attacks need; the session's pipeline is the bare base.

    Args:
        adapter: what they attack; of the session's base.
        config: says how many people are attacked, and at which rate they verify.
    """
    galleries = _judges(galleries_for(session, request), config.far)
    generator = torch.Generator().manual_seed(request.config.seed)
    away = torch.stack(
        [point for person in request.people for point in (person.target.centre, person.target.anchor)]
    )
    control = choose_control(request.bank, request.retained.held_out, away, generator)
    count = config.photographs()
    people = tuple(
        _forgotten(session, request, config, index, count if index < config.people else 0)
        for index in range(len(request.people))
    )
    rows = [row for row in request.retained.held_out if row != control]
    shuffled = [rows[index] for index in torch.randperm(len(rows), generator=generator).tolist()][
        :_OTHERS
    ] or [control]
    photos, source = _portraits(session, request, config, [control], count)
    return AttackContext(
        session.pipe,
        change,
        people,
        ProbedIdentity("control", control, request.bank.of(request.bank.ids[control]), photos, source),
        Others(
            torch.stack([request.bank.of(request.bank.ids[row])[0] for row in shuffled]),
            _portraits(session, request, config, shuffled, 1)[0],
        ),
        request.bank,
        galleries,
        _differentiable(session, request),
        request.config.seed,
    )


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
    session: Session, request: ErasureRequest, config: AuditConfig, index: int, count: int
) -> ProbedIdentity:
    """A forgotten person with ``count`` photographs."""
    person, row = request.people[index], request.forget_rows[index]
    label = "forgotten" if len(request.people) == 1 else f"forgotten {index + 1}"
    embeddings = person.subject.embeddings[list(person.held_out)]
    photos, source = _photographs(session, request, config, person, count)
    return ProbedIdentity(label, row, embeddings, photos, source, person.anchor.embedding)


def _photographs(
    session: Session, request: ErasureRequest, config: AuditConfig, person: ForgottenIdentity, count: int
) -> tuple[torch.Tensor, str]:
    size = _size(session)
    if not count:
        return torch.empty(0, 3, size, size), _FRESH
    # Past those that the references are made of.
    fresh = photographs_of(person.subject.row, request, REFERENCES + count)
    if fresh is not None:
        return _fitted(fresh[REFERENCES:], size), _FRESH
    if person.subject.photos and person.train != person.held_out:
        paths = [person.subject.photos[index] for index in person.held_out][:count]
        return torch.cat([_fitted(_squared(read_picture(path)), size) for path in paths]), _HELD_OUT
    embeddings = person.subject.embeddings[list(person.held_out)]
    return _generated(session, embeddings, count, request.config.seed, config), _GENERATED


def _portraits(
    session: Session, request: ErasureRequest, config: AuditConfig, rows: Sequence[int], count: int
) -> tuple[torch.Tensor, str]:
    """Of people of the bank, ``count`` each: photographs where the bank is the embedded one, else drawn by
    the bare base.
    """
    fresh = [
        photographs[REFERENCES:]
        for row in rows
        if (photographs := photographs_of(row, request, REFERENCES + count)) is not None
    ]
    if fresh:
        return _fitted(torch.cat(fresh), _size(session)), _FRESH
    generated = [
        _generated(
            session, request.bank.of(request.bank.ids[row]), count, request.config.seed + 1 + index, config
        )
        for index, row in enumerate(rows)
    ]
    return torch.cat(generated), _GENERATED


def _generated(
    session: Session, embeddings: torch.Tensor, count: int, seed: int, config: AuditConfig
) -> torch.Tensor:
    seeds = [seed * 100_003 + 60_000 + index for index in range(count)]
    conditions = embeddings[torch.arange(count) % len(embeddings)]
    return generate_images(session.pipe, conditions, seeds, Sampling.of(config))


def _size(session: Session) -> int:
    """Edge of the base's images, in pixels."""
    pipe = session.pipe
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
    session: Session, request: ErasureRequest
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The conditioning recognizer with gradients, where one comes with the base and is the bank's."""
    companions = session.family.companions
    if companions is None or companions.differentiable is None:
        return None
    if request.bank.recognizer != companions.bank().recognizer:
        return None
    return companions.differentiable(session.pipe.device)
