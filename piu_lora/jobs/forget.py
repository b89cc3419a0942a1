"""The job: forget one person, or several, and leave an adapter folder. Read it from top to bottom."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch

from piu_lora.adapter import (
    BaseRef,
    Entry,
    Ledger,
    OutputFolder,
    Receipt,
    adapters_disabled,
    library_versions,
    mounted,
    write_adapter,
)
from piu_lora.adapter.folder import file_digest
from piu_lora.adapter.names import REPORT_FOLDER
from piu_lora.adapter.older_loaders import zeros_for
from piu_lora.adapter.records import AnchorRecord, EvaluationRecord
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, Incompatible
from piu_lora.evidence import Evaluation, before_after, loss_curves, measure_probe, probe_facts, summary
from piu_lora.evidence.report import to_json
from piu_lora.evidence.report.document import AdapterFacts
from piu_lora.identity import IdentityBank
from piu_lora.jobs.evaluation.report import REPORT_FILE, adapter_report
from piu_lora.jobs.evaluation.scoring import photograph_files, score
from piu_lora.jobs.ledger import bank_text, gates_of_others, identity_text, registered
from piu_lora.jobs.request.request import ErasureRequest, Identities, each_identity, open_request
from piu_lora.jobs.request.session import Base, Session, open_session
from piu_lora.jobs.training.launched import is_main, launched_workers
from piu_lora.jobs.training.run_method import as_stored, run_method
from piu_lora.jobs.training.train import TrainingRun, load_checkpoint
from piu_lora.model import DTYPES, family_of
from piu_lora.progress import Progress, silent
from piu_lora.unlearn import GateConfig, find_method
from piu_lora.writing import PRIVATE, make_folder, replacing

__all__ = ["ForgetResult", "forget"]


@dataclass(frozen=True)
class ForgetResult:
    """The finished adapter folder, its receipt, and the evaluation with its pictures."""

    path: Path
    receipt: Receipt
    evaluation: Evaluation | None


def forget(
    identity: Identities,
    base: Base,
    out: str | Path,
    *,
    bank: IdentityBank | str | Path | None = None,
    pack: str | Path | None = None,
    config: ForgetConfig | None = None,
    device: str = "auto",
    evaluate: bool = True,
    unseen: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    ledger: Ledger | None = None,
    progress: Progress = silent,
    preview: Callable[[Session, ErasureRequest], None] | None = None,
) -> ForgetResult:
    """Make an adapter that turns each identity into its anchor and leaves everybody else alone.

    Args:
        identity: a bank id, a photograph, a folder of photographs, or a .npy/.safetensors file of (n, d)
            embeddings; several of them for several people in one adapter, or a .txt file that names one a
            line.
        base: ``mini``, ``arc2face``, a folder, a Hub id, or a loaded pipeline (given back as it was). A base
            given by name is cast to ``train.precision``; a pipeline keeps its own dtype: float32 for every
            precision, or float16 for fp16.
        out: the adapter folder to create.
        bank: the people to retain; the embedded one by default for ``mini``.
        pack: folder of the face detector and recognizer that read photographs and score; by default where
            ``bank models`` puts it.
        config: all settings; by default the preset of the base.
        device: where to load a base given by name.
        evaluate: generate before and after, and score.
        unseen: further photographs of the one person to forget, which nothing is trained on: the evaluation
            reports them as a group of their own.
        force: replace an existing adapter folder, and forget an interrupted run.
        resume: go on with an interrupted run of the same settings.
        ledger: keeps whom the adapter forgets; without one, nothing does.
        progress: told how far the job is.
        preview: called once before scoring, while the new adapter is active in the session's pipeline, for a
            first look.

    Raises:
        PiuLoraError: with what was wrong and what to do; then there is no adapter folder.
        KeyboardInterrupt: interrupted; training goes on with ``resume``.
    """
    # 1. Check everything that can be checked before a model is loaded.
    config = config or ForgetConfig.preset(family_of(base))
    find_method(config.method)  # refuses one that does not exist
    output = OutputFolder(out, force=force)
    session = open_session(base, bank, pack, faces=config.faces, device=device, progress=progress)
    request = open_request(identity, session.bank, config, session.reader)
    # An id of the bank goes before a path of that name, here as in the request: the entry must not name
    # another person.
    forgotten = Entry.joined(
        str(name) if person.subject.row is not None else identity_text(name)
        for name, person in zip(each_identity(identity, request.bank), request.people, strict=True)
    )
    held_back = photograph_files("unseen", unseen)
    with output.claimed() if is_main() else contextlib.nullcontext():
        started = load_checkpoint(output, request, resume=resume, force=force)

        # 2. Load the base, and make sure that it speaks the bank's language.
        pipe = session.pipe
        _check_base(session, request)
        ref = session.reference  # before the cast, which loses digits of its digests
        request = _beside_others(request, ledger, ref, forgotten)
        if pipe is not base and config.train.precision != "fp32":
            pipe.to(dtype=DTYPES[config.train.precision])
        workers = launched_workers(pipe.unet.device)

        # 3. Train the adapter, or solve for it.
        begun = time.perf_counter()
        solution, history = run_method(session, request, TrainingRun(output, started, workers))
        solved = time.perf_counter()

        # 4. Score what will be stored, not what was computed: half precision.
        stored = as_stored(solution.change)
        with mounted(pipe, stored):
            if preview is not None and workers.rank == 0:
                preview(session, request)
            evaluation = score(session, request, held_back) if evaluate and workers.rank == 0 else None
            probe = probe_facts(measure_probe(pipe, lambda: adapters_disabled(pipe)))

        # 5. Write the folder, complete or not at all; of several processes, the first one does.
        seconds = {"train": round(solved - begun, 2), "evaluate": round(time.perf_counter() - solved, 1)}
        facts = {**solution.facts, **_turned(request)}
        receipt = replace(_receipt(ref, request, evaluation, seconds), probe=probe, solution=facts)
        if workers.rank > 0:
            return ForgetResult(output.path, receipt, None)
        enter = _enter(ledger, forgotten, request.bank.digest)
        with (
            registered(ledger, receipt, output.path, forgotten, bank_text(bank), enter) as confirm,
            output.staged() as folder,
        ):
            make_folder(folder / REPORT_FOLDER)
            if history:
                loss_curves(history, folder / "report" / "loss.png")
            describe = partial(_write_report, session, request, receipt, evaluation) if evaluation else None
            weights = {**stored, **zeros_for(stored, pipe.text_encoder)}
            receipt = write_adapter(folder, weights, receipt, describe=describe)
            confirm(receipt)
    return ForgetResult(output.path, receipt, evaluation)


def _check_base(session: Session, request: ErasureRequest) -> None:
    pipe, info = session.pipe, session.info
    if request.bank.width != info.embedding_width:
        raise Incompatible(
            f"the bank holds embeddings of width {request.bank.width}, the base {info.id!r} takes "
            f"{info.embedding_width}; build the bank with the recognizer of the base"
        )
    request.bank.recognizer.require(info.recognizer, "the bank", f"the base {info.id!r}")
    dtype, precision = pipe.unet.dtype, request.config.train.precision
    if dtype == torch.bfloat16:
        raise BadInput(
            "the pipeline is in bfloat16, which has lost digits of the base's digest; load it in float32: "
            "with train.precision = 'bf16' it computes in bfloat16 all the same"
        )
    if dtype not in (torch.float32, DTYPES[precision]):
        raise BadInput(f"the pipeline is in {dtype}, not train.precision = {precision!r}; load it in float32")
    if pipe.get_list_adapters():
        raise BadInput(
            f"the pipeline carries adapters already ({pipe.get_list_adapters()}); pass a base without any"
        )


def _beside_others(
    request: ErasureRequest, ledger: Ledger | None, ref: BaseRef, forgotten: str
) -> ErasureRequest:
    """Gate neurons are taken that no other adapter of the ledger has, so that they add up in a stack."""
    if "gate" not in request.config.to_dict():
        return request
    others = gates_of_others(ledger, ref.id, forgotten.splitlines())
    avoided = sorted({*request.config.section_of(GateConfig).avoided, *others})
    return replace(request, config=request.config.updated({"gate": {"avoided": avoided}}))


def _turned(request: ErasureRequest) -> dict[str, int]:
    """Of photographs that were not upright, how many were turned."""
    turned = sum(person.subject.turned for person in request.people)
    return {"turned_photographs": turned} if turned else {}


def _enter(ledger: Ledger | None, identity: str, bank_digest: str) -> Callable[[Entry], Entry]:
    """What enters the finished adapter into the ledger."""

    def enter(entry: Entry) -> Entry:
        entry = replace(entry, identity=identity, bank_digest=bank_digest)
        return ledger.add(entry) if ledger else entry

    return enter


def _receipt(
    ref: BaseRef, request: ErasureRequest, evaluation: Evaluation | None, seconds: dict[str, float]
) -> Receipt:
    counts = {
        "forget_train": sum(len(person.train) for person in request.people),
        "forget_held_out": sum(len(person.held_out) for person in request.people),
        "retain_train": len(request.retained.train),
        "retain_held_out": len(request.retained.held_out),
        **({"people": len(request.people)} if len(request.people) > 1 else {}),
        **({"under_another_id": len(request.left_out)} if request.left_out else {}),
    }
    cosine = sum(person.anchor.cosine for person in request.people) / len(request.people)
    anchor: AnchorRecord = {"rule": request.config.anchor.rule, "cosine": round(cosine, 2)}
    figures = summary(evaluation) if evaluation else {}
    if evaluation is not None and evaluation.expected is not None:
        figures["expected"] = evaluation.expected.to_dict()
    return Receipt(
        ref,
        request.config.method,
        request.public_settings,
        anchor,
        counts,
        cast(EvaluationRecord, figures),
        seconds,
        library_versions(),
    )


def _write_report(
    session: Session, request: ErasureRequest, receipt: Receipt, evaluation: Evaluation, weights: Path
) -> None:
    """Fill the folder ``report`` beside the weights: figures, and the pictures for the owner."""
    facts = AdapterFacts(
        id=receipt.adapter_id,
        method=receipt.method,
        weights_sha256=file_digest(weights),
        bytes=weights.stat().st_size,
        people=receipt.people,
    )
    folder, seconds = weights.parent / "report", receipt.seconds["evaluate"]
    report = adapter_report(facts, session, request, evaluation, seconds)
    (folder / REPORT_FILE).write_text(to_json(report))
    picture = folder / "before_after.png"
    with replacing(picture, mode=PRIVATE) as temporary:  # it shows the person
        before_after(evaluation).save(temporary, format="PNG")
