"""One erasure request, made ready: who, against which bank, split how, redirected to whom, scored by what."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import without
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import Evaluation, Gallery, Plan, evaluate_images, plan_evaluation
from piu_lora.identity import (
    Anchor,
    BankRows,
    IdentityBank,
    PhotoReader,
    Split,
    Subject,
    centroid,
    choose_anchor,
    resolve_identity,
    split_identities,
)
from piu_lora.model import describe, family_of, generate
from piu_lora.progress import Progress

__all__ = ["Case", "anchor_portraits", "bank_for", "galleries_for", "open_case", "plan_for", "score"]

_log = logging.getLogger("piu_lora")


@dataclass(frozen=True)
class Case:
    """Everything about a request that needs no model."""

    bank: IdentityBank
    subject: Subject
    split: Split
    anchor: Anchor
    config: ForgetConfig
    reader: PhotoReader | None = None  # scores generated faces

    @property
    def forget_train(self) -> torch.Tensor:
        """The forgotten person's training embeddings, (n, d)."""
        return self.subject.embeddings[list(self.split.forget_train)]

    @property
    def forget_row(self) -> int:
        """The forgotten person's row in every gallery: after the bank's own rows if they are not in it."""
        return len(self.bank) if self.subject.row is None else self.subject.row

    @property
    def anchor_row(self) -> int:
        """The anchor's row in every gallery; one who is nobody comes last."""
        if self.anchor.row is not None:
            return self.anchor.row
        return max(len(self.bank), self.forget_row + 1)

    @property
    def retain_train(self) -> BankRows:
        """All embeddings of the people trained on, read where they are asked for."""
        return self.bank.rows_of(self.split.retain_train)

    @property
    def public_settings(self) -> dict[str, Any]:
        """The settings as they may be written down: a fixed anchor is somebody, and stays out."""
        settings = self.config.to_dict()
        settings["anchor"]["identity"] = ""
        return settings

    def digest(self) -> str:
        """SHA-256 of settings and embeddings: whether a checkpoint belongs to this request."""
        digest = hashlib.sha256(json.dumps([self.config.to_dict(), self.bank.digest], sort_keys=True).encode())
        for tensor in (self.forget_train, self.anchor.embedding):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def bank_for(base: str | Path | StableDiffusionPipeline, bank: IdentityBank | Path | str | None) -> IdentityBank:
    """The bank to use: the given one, or the embedded one for the embedded base.

    Raises:
        BadInput: none given, and the base has none of its own.
    """
    if isinstance(bank, IdentityBank):
        return bank
    if bank is not None and str(bank) != "mini":
        return IdentityBank.load(bank)
    if bank is None and family_of(base) != "mini":
        raise BadInput(f"the base {_name(base)!r} has no bank of its own; pass --bank FILE")
    from piu_lora.model import mini

    return mini.conditioning_bank()


def _name(base: str | Path | StableDiffusionPipeline) -> str:
    return describe(base).id if isinstance(base, StableDiffusionPipeline) else str(base)


def open_case(identity: str | Path, bank: IdentityBank, config: ForgetConfig, reader: PhotoReader | None) -> Case:
    """Resolve who is meant, split, and choose the anchor; every draw is seeded by ``config.seed``.

    Args:
        reader: reads photographs and generated faces; its recognizer must be the bank's.

    Raises:
        BadInput: nobody of that name, unusable embeddings, nobody fits as anchor.
        Incompatible: bank and reader use different recognizers.
    """
    if reader is not None:
        bank.recognizer.require(reader.id, "the bank", "the face reader")
    subject = resolve_identity(identity, bank, reader, config.faces.linked)
    generator = torch.Generator().manual_seed(config.seed)
    split = split_identities(len(subject.embeddings), _retained(subject, bank, config.split.same_person), config.split, generator)
    if len(subject.embeddings) == 1:
        _log.warning("a single photograph or embedding: nothing can be held out, and the adapter may not cover other looks of this person")
    if split.forget_held_out == split.forget_train:
        _log.warning("evaluating on the training embeddings: the figures say less about other photographs of this person")
    forgotten = centroid(subject.embeddings[list(split.forget_train)])
    anchor = choose_anchor(bank, forgotten, split.retain_train, config.anchor, generator)
    return Case(bank, subject, split, anchor, config, reader)


def _retained(subject: Subject, bank: IdentityBank, same_person: float) -> list[int]:
    """Everybody else. A person from outside the bank may be in it under an id of their own: those rows are left out."""
    if subject.row is not None:
        return [row for row in range(len(bank)) if row != subject.row]
    same = set((bank.cosines(centroid(subject.embeddings)) >= same_person).nonzero()[:, 0].tolist())
    if same:
        _log.warning("%d identity of the bank is as close as the same person (cosine >= %g) and is left out", len(same), same_person)
    return [row for row in range(len(bank)) if row not in same]


def score(pipe: StableDiffusionPipeline, case: Case, progress: Progress) -> Evaluation | None:
    """Generate with the adapters off and on, same conditions and seeds, and score both; None where no recognizer is at hand."""
    with without(pipe):
        galleries = galleries_for(describe(pipe).family, case, anchor_portraits(pipe, case))
    if not galleries:
        _log.warning("no face pack is at hand, so the adapter is not evaluated; pass --pack DIR (`piu-lora bank models` makes one)")
        return None
    config = case.config.evaluation
    plan = plan_for(case, galleries[0].centroids)
    with progress("evaluate", 2 * len(plan.shots)) as advance:

        def pictures() -> torch.Tensor:
            return generate(
                pipe, plan.embeddings, plan.seeds, steps=config.steps, guidance=config.guidance, batch=config.batch,
                progress=advance,
            )  # fmt: skip

        with without(pipe):
            before = pictures()
        after = pictures()
    return evaluate_images(plan, before, after, galleries)


def plan_for(case: Case, centroids: torch.Tensor) -> Plan:
    """What to generate for this request; ``centroids`` (m, d) are the conditioning gallery's."""
    held_out = case.subject.embeddings[list(case.split.forget_held_out)]

    def embeddings_of(row: int) -> torch.Tensor:
        if row == case.anchor_row:
            return case.anchor.embedding[None] if case.anchor.row is None else case.bank.of(case.bank.ids[row])
        return case.bank.of(case.bank.ids[row])

    return plan_evaluation(
        held_out, case.forget_row, case.split.retain_held_out, case.anchor_row, centroids, embeddings_of,
        case.config.evaluation, case.config.seed,
    )  # fmt: skip


def anchor_portraits(pipe: StableDiffusionPipeline, case: Case) -> torch.Tensor | None:
    """Pictures (n, 3, h, w) of a synthetic anchor by the pipeline as it is; None for an anchor of the bank, who has photographs.

    Their seeds are none of the evaluation's.
    """
    if case.anchor.row is not None:
        return None
    config, count = case.config.evaluation, 8
    seeds = [case.config.seed * 100_003 + 50_000 + place for place in range(count)]
    embeddings = case.anchor.embedding.expand(count, -1)
    return generate(pipe, embeddings, seeds, steps=config.steps, guidance=config.guidance, batch=config.batch)


def galleries_for(family: str, case: Case, portraits: torch.Tensor | None = None) -> list[Gallery]:
    """The conditioning recognizer's gallery, and on the embedded base the evaluating one's where it knows the forgotten person.

    Args:
        portraits: of a synthetic anchor, by the bare base: what a recognizer other than the conditioning one knows them by.
    """
    if case.reader is None:
        return []
    subject, bank = case.subject, case.bank
    made_up = None if case.anchor.row is not None else case.anchor.embedding[None]
    galleries = [Gallery("conditioning", case.reader.embed, _with(bank.centroids, subject, subject.embeddings, made_up))]
    if family != "mini":
        return galleries
    from piu_lora.model import mini

    evaluating, other = mini.evaluating_recognizer(), mini.evaluating_bank()
    if bank.ids != other.ids or (subject.row is None and not subject.photos):
        _log.warning("the evaluating recognizer has no photographs of these people: figures by the conditioning one only")
        return galleries
    seen = evaluating.embed_files(subject.photos) if subject.photos else subject.embeddings
    if made_up is not None:
        if portraits is None:
            raise ValueError("a synthetic anchor is known to the evaluating recognizer by its portraits only")
        made_up = evaluating.embed(portraits)
    return [*galleries, Gallery("evaluating", evaluating.embed, _with(other.centroids, subject, seen, made_up))]


def _with(centroids: torch.Tensor, subject: Subject, embeddings: torch.Tensor, anchor: torch.Tensor | None) -> torch.Tensor:
    """The bank's centroids, then that of a person from outside, then that of a synthetic anchor."""
    strangers = [embeddings] if subject.row is None else []
    made_up = [anchor] if anchor is not None else []
    return torch.cat([centroids, *(centroid(each)[None] for each in (*strangers, *made_up))])
