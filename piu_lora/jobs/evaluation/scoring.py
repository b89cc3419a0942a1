"""Scoring a request: what is generated, and by whom it is judged."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from piu_lora.adapter import adapters_disabled
from piu_lora.errors import BadInput
from piu_lora.evidence import (
    FARS,
    Evaluation,
    Gallery,
    Plan,
    PlannedPeople,
    evaluate_images,
    plan_evaluation,
    require_disjoint,
)
from piu_lora.identity import IdentityBank, PhotoReader, centroid, far_thresholds, normalize
from piu_lora.identity.pictures import list_photos
from piu_lora.jobs.evaluation.expected import expected_to_verify
from piu_lora.jobs.evaluation.images import Sampling, generate_images
from piu_lora.jobs.request.readers import SecondRecognizer
from piu_lora.jobs.request.request import ErasureRequest, ForgottenIdentity
from piu_lora.jobs.request.session import Session
from piu_lora.model import BaseFamily, companions_of

__all__ = [
    "REFERENCES",
    "galleries_for",
    "photograph_files",
    "photographs_of",
    "plan_for",
    "score",
    "unseen_embeddings",
]

REFERENCES = 6  # fresh photographs of a rendered person that images are verified against
_KID_PHOTOGRAPHS = 2048
_SAME_SHOTS = (
    "the forgotten person has no photograph that was kept out of training, "
    "so nothing can be verified against them"
)

_log = logging.getLogger("piu_lora")


def score(session: Session, request: ErasureRequest, unseen: Sequence[Path] = ()) -> Evaluation | None:
    """Generate with the adapters off and on, same conditions and seeds, and score both; None where no
    recognizer is at hand.

    Args:
        unseen: photographs of the forgotten person that nothing is trained on: a group of their own, and
            what the person is verified against.
    """
    pipe = session.pipe
    with adapters_disabled(pipe):
        galleries = galleries_for(session, request, unseen)
    if not galleries:
        _log.warning(
            "no face pack is at hand, so the adapter is not evaluated; "
            "pass pack=DIR (`piu-lora bank models` makes one)"
        )
        return None
    sampling = Sampling.of(request.config.evaluation)
    plan = plan_for(request, galleries[0].centroids, unseen=unseen_embeddings(session, request, unseen))
    with session.progress("evaluate", 2 * len(plan.shots)) as advance:
        with adapters_disabled(pipe):
            before = generate_images(pipe, plan.embeddings, plan.seeds, sampling, advance)
        after = generate_images(pipe, plan.embeddings, plan.seeds, sampling, advance)
    evaluation = evaluate_images(plan, before, after, galleries)
    evaluation.expected = expected_to_verify(pipe, request, galleries[0], sampling)
    return evaluation


def unseen_embeddings(
    session: Session, request: ErasureRequest, photographs: Sequence[Path]
) -> list[tuple[int, torch.Tensor]]:
    """By gallery row, (k, d) of photographs that were given as unseen, and of the bank's photographs of the
    person under other ids. Of several people the bank does not say whose those are.
    """
    if len(request.people) > 1 or session.reader is None:
        return []
    parts = [request.bank.of(request.bank.ids[row]) for row in request.left_out]
    if photographs:
        parts.insert(0, embed_photos(session.reader, photographs))
    return [(request.forget_rows[0], torch.cat(parts))] if parts else []


def plan_for(
    request: ErasureRequest,
    centroids: torch.Tensor,
    more: int = 0,
    unseen: Sequence[tuple[int, torch.Tensor]] = (),
) -> Plan:
    """What to generate for this request; ``centroids`` (m, d) are the conditioning gallery's, ``more`` as for
    ``plan_evaluation``, ``unseen`` as of ``PlannedPeople``.
    """
    forget = [
        (row, person.subject.embeddings[list(person.held_out)])
        for row, person in zip(request.forget_rows, request.people, strict=True)
    ]
    made_up = {
        row: person.anchor
        for row, person in zip(request.anchor_rows, request.people, strict=True)
        if person.anchor.row is None
    }

    def embeddings_of(row: int) -> torch.Tensor:
        return made_up[row].embedding[None] if row in made_up else request.bank.of(request.bank.ids[row])

    decoys = [decoy.row for decoy in request.decoys]
    people = PlannedPeople(forget, request.retained.held_out, request.anchor_rows, decoys, unseen)
    config = request.config
    return plan_evaluation(people, centroids, embeddings_of, config.evaluation, config.seed, more)


def _anchor_portraits(session: Session, request: ErasureRequest) -> torch.Tensor:
    """Pictures (k, 8, 3, h, w) of the synthetic anchors by the pipeline as it is, with seeds that are none of
    the evaluation's.
    """
    sampling, count = Sampling.of(request.config.evaluation), 8
    embeddings = torch.stack(request.made_up).repeat_interleave(count, dim=0)
    seeds = [request.config.seed * 100_003 + 50_000 + index for index in range(len(embeddings))]
    pictures = generate_images(session.pipe, embeddings, seeds, sampling)
    return pictures.reshape(-1, count, *pictures.shape[1:])


def galleries_for(
    session: Session, request: ErasureRequest, references: Sequence[Path] = ()
) -> list[Gallery]:
    """The conditioning recognizer's gallery, and the evaluating one's where there is one that knows the
    people; none where no recognizer is at hand.

    The evaluating recognizer knows a synthetic anchor by its portraits, which are generated here: call this
    while no adapter is active.

    Args:
        references: photographs of the forgotten person that nothing was trained on; by default those held
            out.

    Raises:
        BadInput: a reference was trained on; a second bank of other people.
    """
    if session.reader is None:
        return []
    if references and len(request.people) > 1:
        raise BadInput("references belong to one person, and several are forgotten here; leave them out")
    first = _gallery("conditioning", session.reader, request.bank, request, None, references)
    second = session.second or _second_of(session.family, request)
    if second is None:
        return [first]
    second.require_people_of(request.bank)
    if not all(person.subject.photos for person in request.strangers):
        _log.warning(
            "the evaluating recognizer has no photographs of these people: "
            "figures by the conditioning one only"
        )
        return [first]
    portraits = _anchor_portraits(session, request) if request.made_up else None
    return [first, _gallery("evaluating", second.reader, second.bank, request, portraits, references)]


def _second_of(family: BaseFamily, request: ErasureRequest) -> SecondRecognizer | None:
    """The evaluating recognizer that comes with the base; None where none does, or it does not know the
    people of the request's bank.
    """
    companions = family.companions
    if companions is None or companions.second_bank is None or companions.second_reader is None:
        return None
    if request.bank.ids != companions.second_bank().ids:
        _log.warning(
            "the evaluating recognizer has no photographs of these people: "
            "figures by the conditioning one only"
        )
        return None
    return SecondRecognizer(companions.second_reader(), companions.second_bank())


def _gallery(
    name: str,
    reader: PhotoReader,
    bank: IdentityBank,
    request: ErasureRequest,
    portraits: torch.Tensor | None,
    references: Sequence[Path],
) -> Gallery:
    conditioning = name == "conditioning"
    strangers = [
        person.subject.embeddings if conditioning else embed_photos(reader, person.subject.photos)
        for person in request.strangers
    ]
    made_up = (
        [embeddings[None] for embeddings in request.made_up]
        if conditioning
        else [reader.embed(portrait) for portrait in (() if portraits is None else portraits)]
    )
    everybody = torch.cat(
        [bank.centroids, *(centroid(embeddings)[None] for embeddings in (*strangers, *made_up))]
    )
    known = {
        row: _reference(person, reader, bank, request, conditioning=conditioning, references=references)
        for row, person in zip(request.forget_rows, request.people, strict=True)
    }
    return Gallery(
        name,
        reader.embed,
        everybody,
        {row: embeddings for row, embeddings in known.items() if embeddings is not None},
        far_thresholds(bank, FARS),
        _SAME_SHOTS if any(embeddings is None for embeddings in known.values()) else "",
        frozenset(range(len(everybody) - len(made_up), len(everybody))),
        normalize(bank.embeddings[:: max(len(bank.embeddings) // _KID_PHOTOGRAPHS, 1)]),
        "conditions the base" if conditioning else "only evaluates",
    )


def embed_photos(reader: PhotoReader, paths: Sequence[Path]) -> torch.Tensor:
    """The face of each photograph: (n, d) unit rows."""
    return torch.stack([reader.read(path)[0].embedding for path in paths])


def _reference(
    person: ForgottenIdentity,
    reader: PhotoReader,
    bank: IdentityBank,
    request: ErasureRequest,
    *,
    conditioning: bool,
    references: Sequence[Path],
) -> torch.Tensor | None:
    """(d,) what a forgotten person is verified against: a centroid of what was never trained on; None where
    there is nothing.
    """
    if references:
        embedded = embed_photos(reader, references)
        trained = _trained(person, reader, conditioning=conditioning)
        if trained is not None:
            require_disjoint(embedded, trained, "conditioning" if conditioning else "evaluating")
        return centroid(embedded)
    photographs = photographs_of(person.subject.row, request, REFERENCES)
    if photographs is not None:
        return centroid(reader.embed(photographs))
    if person.train == person.held_out:
        return None
    held_out = list(person.held_out)
    if conditioning:
        return centroid(person.subject.embeddings[held_out])
    if person.subject.photos:
        return centroid(embed_photos(reader, [person.subject.photos[index] for index in held_out]))
    embeddings = (
        bank.of(request.bank.ids[person.subject.row]) if person.subject.row is not None else torch.empty(0)
    )
    # As many embeddings as in the first bank: made from the same photographs, in the same order.
    return centroid(embeddings[held_out]) if len(embeddings) == len(person.subject.embeddings) else None


def _trained(person: ForgottenIdentity, reader: PhotoReader, *, conditioning: bool) -> torch.Tensor | None:
    """What was trained on, (n, d) as the recognizer sees it; None where its photographs are not at hand."""
    if conditioning:
        return person.subject.embeddings[list(person.train)]
    return (
        embed_photos(reader, [person.subject.photos[index] for index in person.train])
        if person.subject.photos
        else None
    )


def photographs_of(row: int | None, request: ErasureRequest, count: int) -> torch.Tensor | None:
    """Photographs (count, 3, h, w) in [0, 1], which are in no bank, of the person in a row of a bank that
    comes with its base; None for everybody else.
    """
    companions = companions_of(request.bank) if row is not None else None
    if row is None or companions is None or companions.photographs is None:
        return None
    return companions.photographs(row, count)


def photograph_files(name: str, where: str | Path | None) -> list[Path]:
    """A photograph, or those of a folder; none where nothing is named.

    Args:
        name: of the argument, for messages.

    Raises:
        BadInput: nothing is there.
    """
    if where is None:
        return []
    path = Path(where)
    if not path.exists():
        raise BadInput(f"{name} = {str(path)!r} is not there; name a photograph or a folder of photographs")
    photographs = [path] if path.is_file() else list_photos(path)
    if not photographs:
        raise BadInput(f"{name} = {str(path)!r} holds no photographs")
    return photographs
