"""An erasure request, made ready: who, against which bank, split how, redirected to whom, scored by what."""

import hashlib
import itertools
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.config import DecoyConfig, ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import (
    Anchor,
    IdentityBank,
    PhotoReader,
    ResolvedIdentity,
    centroid,
    choose_anchor,
    read_list,
    resolve_identity,
    split_embeddings,
    split_identities,
)
from piu_lora.identity.constants import value_of
from piu_lora.identity.verification import cosines_of_several
from piu_lora.jobs.request.constants import settled
from piu_lora.model import FAMILIES, describe, family_of
from piu_lora.unlearn import Problem, TargetIdentity

__all__ = [
    "Decoy",
    "ErasureRequest",
    "ForgottenIdentity",
    "Identities",
    "Retained",
    "bank_for",
    "each_identity",
    "open_request",
]

Identities = str | Path | Sequence[str | Path]

_log = logging.getLogger("piu_lora")


@dataclass(frozen=True)
class Retained:
    """Bank rows of everybody else, on either side."""

    train: tuple[int, ...]
    held_out: tuple[int, ...]


@dataclass(frozen=True)
class ForgottenIdentity:
    """One forgotten person: their embeddings on either side, and who replaces them."""

    subject: ResolvedIdentity
    train: tuple[int, ...]
    held_out: tuple[int, ...]
    anchor: Anchor

    @property
    def target(self) -> TargetIdentity:
        """What methods are told."""
        return TargetIdentity(self.subject.embeddings[list(self.train)], self.anchor.embedding)


@dataclass(frozen=True)
class Decoy:
    """Somebody of the bank whom the adapter changes so that the forgotten person does not stand out.

    Attributes:
        row: of the bank.
        target: the decoy, with whoever replaces them.
    """

    row: int
    target: TargetIdentity


@dataclass(frozen=True)
class ErasureRequest:
    """Everything about a request that needs no model.

    Attributes:
        left_out: rows of the bank that are forgotten people under other ids: neither forgotten by these ids
            nor retained.
    """

    bank: IdentityBank
    people: tuple[ForgottenIdentity, ...]
    retained: Retained
    config: ForgetConfig
    decoys: tuple[Decoy, ...] = ()
    left_out: tuple[int, ...] = ()

    @cached_property
    def problem(self) -> Problem:
        """What methods are told; everybody else's embeddings are read where they are asked for."""
        targets = (*(person.target for person in self.people), *(decoy.target for decoy in self.decoys))
        if self.config.train.stop_at > 0:
            targets = tuple(
                TargetIdentity.with_validation(target.forget, target.anchor) for target in targets
            )
        return Problem(targets, self.bank.rows_of(self.retained.train))

    @property
    def strangers(self) -> list[ForgottenIdentity]:
        """Those who are not in the bank."""
        return [person for person in self.people if person.subject.row is None]

    @property
    def forget_rows(self) -> list[int]:
        """The forgotten people's rows in every gallery: after the bank's own rows if they are not in it."""
        after = itertools.count(len(self.bank))
        return [next(after) if person.subject.row is None else person.subject.row for person in self.people]

    @property
    def anchor_rows(self) -> list[int]:
        """The anchors' rows in every gallery; those who are nobody come last."""
        after = itertools.count(len(self.bank) + len(self.strangers))
        return [next(after) if person.anchor.row is None else person.anchor.row for person in self.people]

    @property
    def made_up(self) -> list[torch.Tensor]:
        """The synthetic anchors, (d,) each."""
        return [person.anchor.embedding for person in self.people if person.anchor.row is None]

    @property
    def public_settings(self) -> dict[str, Any]:
        """The settings as they may be written down: a fixed anchor is somebody, and decoys must not be drawn
        again.
        """
        settings = self.config.to_dict()
        settings["anchor"]["identity"] = ""
        settings["decoys"]["seed"] = 0
        return settings

    def digest(self) -> str:
        """SHA-256 of settings and embeddings: whether a checkpoint belongs to this request."""
        digest = hashlib.sha256(
            json.dumps([self.config.to_dict(), self.bank.digest], sort_keys=True).encode()
        )
        for target in self.problem.targets:
            for tensor in (target.forget, target.anchor):
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def bank_for(
    base: str | Path | StableDiffusionPipeline, bank: IdentityBank | Path | str | None
) -> IdentityBank:
    """The bank to use: the given one, or the one that comes with the base.

    The name of a family stands for its bank.

    Raises:
        BadInput: none given, and the base has none of its own.
    """
    if isinstance(bank, IdentityBank):
        return bank
    family = family_of(base) if bank is None else FAMILIES.get(str(bank).lower())
    if family is not None and family.companions is not None:
        return family.companions.bank()
    if bank is None:
        raise BadInput(f"the base {_name(base)!r} has no bank of its own; pass bank=FILE")
    return IdentityBank.load(bank)


def _name(base: str | Path | StableDiffusionPipeline) -> str:
    return describe(base).id if isinstance(base, StableDiffusionPipeline) else str(base)


def each_identity(identity: Identities, bank: IdentityBank | None = None) -> list[str | Path]:
    """The people meant, one by one.

    Args:
        identity: one, several, or a .txt file that names one a line (``read_list``).
        bank: whose ids go before files of the same name beside a list.

    Raises:
        BadInput: nobody, or somebody twice; a list that cannot be read.
    """
    if isinstance(identity, str | Path):
        is_list = Path(identity).suffix.lower() == ".txt"
        people: list[str | Path] = list(read_list(Path(identity), bank or ())) if is_list else [identity]
    else:
        people = [person for entry in identity for person in each_identity(entry, bank)]
    if not people:
        raise BadInput(
            f"{identity!r} names nobody; pass an identity for each person, or a .txt file with one a line"
        )
    if len(set(map(str, people))) < len(people):
        raise BadInput("somebody is named twice; name each person once")
    return people


def open_request(
    identity: Identities, bank: IdentityBank, config: ForgetConfig, reader: PhotoReader | None
) -> ErasureRequest:
    """Resolve who is meant, split, and choose the anchors; every draw is seeded by ``config.seed``.

    Args:
        identity: as for ``each_identity``.
        reader: reads photographs; its recognizer must be the bank's.

    Raises:
        BadInput: nobody of that name, unusable embeddings, nobody fits as anchor.
        Incompatible: bank and reader use different recognizers.
    """
    if reader is not None:
        bank.recognizer.require(reader.id, "the bank", "the face reader")
    subjects = [
        resolve_identity(entry, bank, reader, config.faces.linked) for entry in each_identity(identity, bank)
    ]
    generator = torch.Generator().manual_seed(config.seed)
    fewest = min(len(subject.embeddings) for subject in subjects)
    config = settled(config, bank, fewest, ["split.same_person"], quiet=True)
    left_out = _under_another_id(subjects, bank, config.split.same_person)
    named = {subject.row for subject in subjects}
    others = [row for row in range(len(bank)) if row not in left_out and row not in named]
    first, *more = subjects
    split = split_identities(len(first.embeddings), others, config.split, generator)
    sides = [
        (split.forget_train, split.forget_held_out),
        *(split_embeddings(len(entry.embeddings), config.split, generator) for entry in more),
    ]
    config = settled(config, bank, min(len(train) for train, _ in sides))
    _warn(subjects, sides)
    anchors = _anchors(subjects, sides, bank, split.retain_train, config, generator)
    people = tuple(
        ForgottenIdentity(subject, *side, anchor)
        for subject, side, anchor in zip(subjects, sides, anchors, strict=True)
    )
    decoys = _decoys(bank, people, split.retain_train, config.decoys)
    hidden = {decoy.row for decoy in decoys}
    train = tuple(row for row in split.retain_train if row not in hidden)
    retained = Retained(train, split.retain_held_out)
    return ErasureRequest(bank, people, retained, config, decoys, tuple(sorted(left_out)))


def _anchors(
    subjects: list[ResolvedIdentity],
    sides: list[tuple[tuple[int, ...], tuple[int, ...]]],
    bank: IdentityBank,
    candidates: Sequence[int],
    config: ForgetConfig,
    generator: torch.Generator,
) -> list[Anchor]:
    """One for each person."""
    rows = torch.as_tensor(candidates)
    centres = [
        centroid(subject.embeddings[list(train)]) for subject, (train, _) in zip(subjects, sides, strict=True)
    ]
    cosines: Iterable[torch.Tensor | None] = itertools.repeat(None)
    if len(centres) > 1 and config.anchor.rule != "synthetic":
        cosines = cosines_of_several(bank, torch.stack(centres))
    return [
        choose_anchor(bank, centre, rows, config.anchor, generator, known)
        for centre, known in zip(centres, cosines, strict=False)
    ]


def _decoys(
    bank: IdentityBank, people: Sequence[ForgottenIdentity], candidates: Sequence[int], config: DecoyConfig
) -> tuple[Decoy, ...]:
    """A seeded pick, without the anchors; each becomes somebody at ``config.cosine`` with themselves, on the
    way to a stranger.
    """
    if config.count == 0:
        return ()
    anchors = {person.anchor.row for person in people}
    free = [row for row in candidates if row not in anchors]
    if config.count > len(free) // 2:
        raise BadInput(
            f"decoys.count = {config.count} of {len(free)} people leaves too few to retain; "
            "pass a smaller number"
        )
    if config.seed == 0:
        raise BadInput(
            "decoys need a seed that nobody else knows, since it says who they are; "
            "pass a large decoys.seed=NUMBER"
        )
    generator = torch.Generator().manual_seed(config.seed)
    order = [free[index] for index in torch.randperm(len(free), generator=generator).tolist()]
    decoys, cosine = [], value_of("decoys.cosine", config.cosine)
    for row, stranger in zip(order[: config.count], order[config.count :], strict=False):
        centre = bank.centroid(row)
        across = bank.centroid(stranger) - (bank.centroid(stranger) @ centre) * centre
        turned = cosine * centre + (1 - cosine**2) ** 0.5 * across / across.norm()
        decoys.append(Decoy(row, TargetIdentity(bank.of(bank.ids[row]), turned)))
    return tuple(decoys)


def _under_another_id(
    subjects: list[ResolvedIdentity], bank: IdentityBank, same_person: float | str
) -> set[int]:
    """Rows of the bank that verify as somebody to forget, beside the rows that were named."""
    limit = value_of("split.same_person", same_person)
    named, rows = {subject.row for subject in subjects}, set()
    centres = torch.stack([centroid(subject.embeddings) for subject in subjects])
    for subject, cosines in zip(subjects, cosines_of_several(bank, centres), strict=True):
        close = (cosines >= limit).nonzero()[:, 0].tolist()
        recognised = set(close) - named
        if recognised:
            _log.warning(
                "a person to forget is in the bank under %s: verified at a cosine of %.3f or more; left out "
                "of the retained",
                ("another id" if subject.row is not None else "an id of their own")
                if len(recognised) == 1
                else f"{len(recognised)} {'other ' if subject.row is not None else ''}ids",
                limit,
            )
        rows |= recognised
    return rows


def _warn(subjects: list[ResolvedIdentity], sides: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    single = sum(len(subject.embeddings) == 1 for subject in subjects)
    if single:
        source = (
            "a single photograph or embedding"
            if len(subjects) == 1
            else f"a single photograph or embedding of {single} people"
        )
        _log.warning(
            "%s: nothing can be held out, and the adapter may not cover other looks of this person", source
        )
    if any(train == held_out for train, held_out in sides):
        _log.warning(
            "evaluating on the training embeddings: "
            "the figures say less about other photographs of this person"
        )
