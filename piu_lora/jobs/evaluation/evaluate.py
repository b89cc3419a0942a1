"""Evaluating an adapter: does it forget, whom does it harm, are the pictures still good; a report, judged by
a policy.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline

from piu_lora.adapter import Adapter, adapters_disabled, load_adapter, open_adapter, unload, weights_digest
from piu_lora.config import ForgetConfig, ReportConfig
from piu_lora.errors import BadInput
from piu_lora.evidence import (
    Evaluation,
    Gallery,
    Measured,
    Plan,
    Policy,
    agreement,
    before_after,
    evaluate_measured,
    png_bytes,
    quality_figures,
    shown_places,
)
from piu_lora.evidence.evaluation import KID_LEAST
from piu_lora.evidence.report import Pictures, VerdictLine
from piu_lora.identity import FaceQuality, IdentityBank
from piu_lora.identity.constants import value_of
from piu_lora.jobs.evaluation.expected import expected_to_verify, expected_words
from piu_lora.jobs.evaluation.images import ImageMeasurer, Sampling, kept_measurements
from piu_lora.jobs.evaluation.report import (
    Reported,
    earlier_report,
    finished,
    new_document,
    warn_of_others,
    write_report,
)
from piu_lora.jobs.evaluation.scoring import (
    galleries_for,
    photograph_files,
    photographs_of,
    plan_for,
    unseen_embeddings,
)
from piu_lora.jobs.evaluation.sweeps import sweep_images, sweeps
from piu_lora.jobs.request.readers import open_second, providers_for, require_both
from piu_lora.jobs.request.request import ErasureRequest, Identities, open_request
from piu_lora.jobs.request.session import Base, Session, open_session
from piu_lora.model import Precision, find_family
from piu_lora.progress import Progress, silent
from piu_lora.settings import parted

__all__ = ["Assessment", "Judges", "evaluate", "receipt_settings"]


@dataclass(frozen=True)
class Judges:
    """Who judges, beside the recognizer that conditions the base.

    Attributes:
        second: face pack of a recognizer that only evaluates, and ``second_bank`` the same people as the bank
            by that recognizer. The embedded base has its own.
        references: photographs of the forgotten person that nothing was trained on; by default those that
            were held out.
        quality: an ONNX model of face quality.
        unseen: photographs of the forgotten person that nothing was trained on, for a group of their own;
            the references, too, where these are not given.
    """

    second: str | Path | None = None
    second_bank: str | Path | None = None
    references: str | Path | None = None
    quality: str | Path | None = None
    unseen: str | Path | None = None

    def __post_init__(self) -> None:
        require_both(self.second, self.second_bank)

    @property
    def photographs(self) -> list[Path]:
        """The references' files."""
        return photograph_files("references", self.references) or self.unseen_photographs

    @property
    def unseen_photographs(self) -> list[Path]:
        """The unseen photographs' files."""
        return photograph_files("unseen", self.unseen)


@dataclass(frozen=True)
class Assessment(Reported):
    """A finished evaluation, with its figures and pictures."""

    evaluation: Evaluation

    @property
    def figures(self) -> dict[str, Any]:
        """By recognizer."""
        return self.evaluation.figures

    @property
    def missed(self) -> tuple[VerdictLine, ...]:
        """The lines of the verdict that do not pass."""
        return self.report.verdict.missed if self.report.verdict else ()


def evaluate(
    adapter: str | Path,
    identity: Identities,
    base: Base,
    out: str | Path | None = None,
    *,
    bank: IdentityBank | str | Path | None = None,
    pack: str | Path | None = None,
    judges: Judges = Judges(),
    settings: Sequence[str] = (),
    policy: Policy = Policy(),  # noqa: B008
    images: bool = False,
    public: bool = False,
    device: str = "auto",
    dtype: Precision = "fp32",
    force: bool = False,
    progress: Progress = silent,
) -> Assessment:
    """Measure what an adapter does to the person it forgets, and to everybody else.

    An interrupted evaluation goes on where it stopped when it is repeated with the same ``out``.

    Args:
        adapter: the adapter folder, or a Hub id.
        identity: the forgotten person or people, as it was given to ``forget``; the adapter does not know.
        base: as for ``forget``; a pipeline is given back without the adapter.
        out: a folder to create for report.json, report.md and report.html; one with an audit of the same
            adapter keeps it.
        bank, pack: as for ``forget``.
        judges: further recognizers, references and models.
        settings: ``evaluation.key=value`` pairs laid over the receipt's settings, ``report.key=value`` pairs
            over ``ReportConfig``.
        policy: what the report must show to pass.
        images: show the forgotten person in report.html; otherwise no image of them is kept.
        public: leave out whatever is about the forgotten person, and all images.
        device, dtype: of a base given by name.
        force: replace an earlier evaluation.
        progress: told how far the job is.

    Raises:
        BadInput: unreadable adapter, unknown identity, references that were trained on.
        Incompatible: the adapter belongs to another base.
    """
    # 1. Check everything that can be checked before a model is loaded.
    opened = open_adapter(adapter)
    folder = None if out is None else Path(out)
    earlier = None if folder is None else earlier_report(folder, "evaluation", opened, force=force)
    report_pairs, others = parted(settings, "report")
    report, config = ReportConfig().updated_from_pairs(report_pairs), receipt_settings(opened, others)
    second, references = open_second(judges.second, judges.second_bank, device), judges.photographs
    session = open_session(
        base, bank, pack, faces=config.faces, second=second, device=device, dtype=dtype, progress=progress
    )
    request = open_request(identity, session.bank, config, session.reader)
    warn_of_others(opened, request)
    quality = None if judges.quality is None else FaceQuality(judges.quality, providers_for(device))

    # 2. Load the base; ask who can judge, and what is to be generated.
    pipe = session.pipe
    begun = time.perf_counter()
    galleries = galleries_for(session, request, references)
    if not galleries:
        raise BadInput(
            "no face pack is at hand, so nothing can be scored; "
            "pass pack=DIR (`piu-lora bank models` makes one)"
        )
    plan = plan_for(
        request,
        galleries[0].centroids,
        max(report.leak_images - max(config.evaluation.forget_images, len(request.people)), 0),
        unseen_embeddings(session, request, judges.unseen_photographs),
    )
    digest = _digest(opened, pipe, request, report, galleries, quality)

    # 3. Generate with the adapter off and on; keep measurements, not pictures.
    name = load_adapter(pipe, opened)
    try:
        with (
            kept_measurements(folder, digest) as cache,
            progress("evaluate", 2 * len(plan.shots) + sweep_images(plan, report)) as advance,
        ):
            measurer = ImageMeasurer(galleries, Sampling.of(config.evaluation), cache, quality, advance)
            evaluation, measured = _before_and_after(
                pipe, plan, measurer, shown_places(plan, forgotten=images)
            )
            expected = expected_to_verify(pipe, request, galleries[0], measurer.sampling)
            swept = sweeps(pipe, name, request, plan, measured, measurer, report)
    finally:
        unload(pipe, [name])

    # 4. Figures, report, verdict.
    face_quality = quality_figures(plan, *measured, galleries[-1], _name(judges.quality))
    notes = [expected_words(expected)] if expected is not None else []
    section = {
        "seconds": round(time.perf_counter() - begun, 1),
        "images": measurer.images,
        "recognizers": evaluation.figures,
        "agreement": agreement(plan, measured[1], galleries),
        "quality": face_quality,
        "doubles": _doubles(request, galleries[0]),
        "expected": expected,
        "sweeps": swept,
        "notes": [*notes, *_notes(opened, session, request, galleries, references, face_quality)],
    }
    written = finished(
        {**new_document(opened, session, request, len(references)), "evaluation": section},
        earlier,
        policy,
        public=public,
    )
    files: list[Path] = []
    if folder is not None:
        sheet = png_bytes(before_after(evaluation, forgotten=images))
        files = write_report(folder, written, Pictures(sheet))
    return Assessment(written, tuple(files), evaluation)


def receipt_settings(adapter: Adapter, pairs: Sequence[str] = ()) -> ForgetConfig:
    """The settings of the run that made the adapter (for one made of others, the defaults of its base) with
    pairs laid over them.

    Raises:
        BadInput: the adapter's anchor is somebody who was named by hand, and is not named again.
    """
    receipt = adapter.receipt
    config = (
        ForgetConfig.preset(find_family(receipt.base.family))
        if receipt.members
        else ForgetConfig().updated(receipt.settings)
    )
    if config.anchor.rule == "fixed" and not any(pair.startswith("anchor.identity=") for pair in pairs):
        raise BadInput(
            "the adapter's anchor was fixed by hand and is not stored; pass it as anchor.identity=ID"
        )
    if config.decoys.count and not any(pair.startswith("decoys.seed=") for pair in pairs):
        config = config.updated(
            {"decoys": {"count": 0}}
        )  # who they are is not stored, so nothing can be said of them
    return config.updated_from_pairs(pairs)


def _before_and_after(
    pipe: StableDiffusionPipeline, plan: Plan, measurer: ImageMeasurer, keep: list[int]
) -> tuple[Evaluation, tuple[Measured, Measured]]:
    with adapters_disabled(pipe):
        before, old = measurer.generate_and_measure(pipe, "plan-before", plan.shots, keep=keep)
    after, new = measurer.generate_and_measure(pipe, "plan-after", plan.shots, keep=keep)
    return Evaluation(plan, old, new, evaluate_measured(plan, before, after, measurer.galleries)), (
        before,
        after,
    )


def _digest(
    adapter: Adapter,
    pipe: StableDiffusionPipeline,
    request: ErasureRequest,
    report: ReportConfig,
    galleries: Sequence[Gallery],
    quality: object,
) -> str:
    """Of everything that measurements depend on."""
    references = [gallery.references[row] for gallery in galleries for row in gallery.references]
    judges = [[gallery.name for gallery in galleries], quality is None]
    facts = [weights_digest(adapter), request.digest(), report.to_dict(), str(pipe.unet.dtype), judges]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for reference in references:
        digest.update(reference.numpy().tobytes())
    return digest.hexdigest()


def _doubles(request: ErasureRequest, gallery: Gallery) -> dict[str, Any]:
    """Identities of the bank whose centroid is as close to a forgotten person's as the same person's would
    be.
    """
    limit = value_of("split.same_person", request.config.split.same_person)
    forgotten = request.forget_rows
    cosines = gallery.centroids[: len(request.bank)] @ gallery.centroids[forgotten].T
    cosines[[row for row in forgotten if row < len(request.bank)]] = -2
    return {"count": int((cosines.amax(dim=1) >= limit).sum()), "cosine": limit}


def _notes(
    adapter: Adapter,
    session: Session,
    request: ErasureRequest,
    galleries: Sequence[Gallery],
    references: Sequence[Path],
    quality: dict[str, Any],
) -> list[str]:
    """What could not be measured, and why."""
    notes = []
    if len(galleries) == 1:
        notes.append("one recognizer only: it conditions the base as well, and an edit could please it alone")
    if any(person.train == person.held_out for person in request.people):
        notes.append("evaluated on the training embeddings of a person of whom nothing could be held out")
    if not references and any(
        photographs_of(person.subject.row, request, 1) is None for person in request.people
    ):
        notes.append("the references are the held-out embeddings, which the images were made from as well")
    if not hasattr(session.reader, "faces"):
        notes.append(
            "the embedded recognizers have no detector: "
            "every picture counts as a face; sharpness and KID show ruined ones"
        )
    if request.config.decoys.count != adapter.receipt.settings.get("decoys", {}).get("count", 0):
        notes.append(
            "the adapter has decoys, and what it does to them was not measured: pass decoys.seed=NUMBER"
        )
    if quality["kid"] is None:
        notes.append(
            f"KID was left out: it needs {KID_LEAST} pictures of the forgotten person and of the others"
        )
    if quality["face_quality"] is None:
        notes.append("no face-quality model was given")
    return notes


def _name(path: str | Path | None) -> str:
    return "" if path is None else Path(path).name
