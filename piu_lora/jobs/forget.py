"""The job: forget one person, or several, and leave an adapter folder. Read it from top to bottom."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

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
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, Incompatible
from piu_lora.evidence import Evaluation, before_after, loss_curves, measure_probe, probe_facts, summary
from piu_lora.evidence.report import to_json
from piu_lora.evidence.report.document import AdapterFacts
from piu_lora.identity import IdentityBank
from piu_lora.jobs.evaluation.report import REPORT_FILE, adapter_report
from piu_lora.jobs.evaluation.scoring import score
from piu_lora.jobs.ledger import bank_text, identity_text, registered
from piu_lora.jobs.request.readers import reader_for
from piu_lora.jobs.request.request import ErasureRequest, Identities, bank_for, each_identity, open_request
from piu_lora.jobs.training.launched import is_main, launched_workers
from piu_lora.jobs.training.run_method import run_method
from piu_lora.jobs.training.train import load_checkpoint
from piu_lora.model import DTYPES, attention_digest, describe, encoder_digest, family_of, load_base
from piu_lora.progress import Progress, silent
from piu_lora.unlearn import find_method

__all__ = ["ForgetResult", "forget"]


@dataclass(frozen=True)
class ForgetResult:
    """The finished adapter folder, its receipt, and the evaluation with its pictures."""

    path: Path
    receipt: Receipt
    evaluation: Evaluation | None


def forget(
    identity: Identities,
    base: str | Path | StableDiffusionPipeline,
    out: str | Path,
    *,
    bank: IdentityBank | str | Path | None = None,
    pack: str | Path | None = None,
    config: ForgetConfig | None = None,
    device: str = "auto",
    evaluate: bool = True,
    force: bool = False,
    resume: bool = False,
    ledger: Ledger | None = None,
    progress: Progress = silent,
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
        force: replace an existing adapter folder, and forget an interrupted run.
        resume: go on with an interrupted run of the same settings.
        ledger: keeps whom the adapter forgets; without one, nothing does.
        progress: told how far the job is.

    Raises:
        PiuLoraError: with what was wrong and what to do; then there is no adapter folder.
        KeyboardInterrupt: interrupted; training goes on with ``resume``.
    """
    # 1. Check everything that can be checked before a model is loaded.
    config = config or ForgetConfig.preset(family_of(base))
    method = find_method(config.method)
    output = OutputFolder(out, force=force)
    request = open_request(
        identity, bank_for(base, bank), config, reader_for(base, pack, config.faces, device)
    )
    with output.claimed() if is_main() else contextlib.nullcontext():
        started = load_checkpoint(output, request, resume=resume, force=force)

        # 2. Load the base, and make sure that it speaks the bank's language.
        pipe = base if isinstance(base, StableDiffusionPipeline) else load_base(base, device=device)
        ref = _check_base(pipe, request)
        if pipe is not base and config.train.precision != "fp32":
            pipe.to(dtype=DTYPES[config.train.precision])
        workers = launched_workers(pipe.unet.device)

        # 3. Train the adapter, or solve for it.
        begun = time.perf_counter()
        solution, history = run_method(pipe, method, request, output, started, workers, progress)
        made = time.perf_counter()

        # 4. Score what will be stored, not what was computed: half precision.
        stored = {
            module: factors.to(torch.float16).to(torch.float32) for module, factors in solution.change.items()
        }
        with mounted(pipe, stored):
            evaluation = score(pipe, request, progress) if evaluate and workers.rank == 0 else None
            probe = probe_facts(measure_probe(pipe, lambda: adapters_disabled(pipe)))

        # 5. Write the folder, complete or not at all; of several processes, the first one does.
        seconds = {"train": round(made - begun, 2), "evaluate": round(time.perf_counter() - made, 1)}
        receipt = replace(_receipt(ref, request, evaluation, seconds), probe=probe, solution=solution.facts)
        if workers.rank > 0:
            return ForgetResult(output.path, receipt, None)
        # An id of the bank goes before a path of that name, here as in the case: the entry must not name
        # another person.
        who = Entry.joined(
            str(each) if person.subject.row is not None else identity_text(each)
            for each, person in zip(each_identity(identity), request.people, strict=True)
        )
        enter = _enter(ledger, who, request.bank.digest)
        with (
            registered(ledger, receipt, output.path, who, bank_text(bank), enter) as confirm,
            output.staged() as folder,
        ):
            (folder / "report").mkdir()
            if evaluation is not None:
                _write_before_after(folder / "report" / "before_after.png", evaluation)
            if history:
                loss_curves(history, folder / "report" / "loss.png")

            def write_report(weights: Path) -> None:
                if evaluation is not None:
                    report = adapter_report(
                        _facts(receipt, request, weights), pipe, request, evaluation, seconds["evaluate"]
                    )
                    (folder / "report" / REPORT_FILE).write_text(to_json(report))

            receipt = write_adapter(folder, stored, receipt, describe=write_report)
            confirm(receipt)
    return ForgetResult(output.path, receipt, evaluation)


def _check_base(pipe: StableDiffusionPipeline, request: ErasureRequest) -> BaseRef:
    info = describe(pipe)
    if request.bank.width != info.embedding_width:
        raise Incompatible(
            f"the bank holds embeddings of width {request.bank.width}, the base {info.id!r} takes {info.embedding_width}; "
            "build the bank with the recognizer of the base"
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
    return BaseRef(
        info.id,
        info.family.name,
        attention_digest(pipe.unet),
        info.revision,
        encoder_digest(pipe.text_encoder),
    )


def _enter(ledger: Ledger | None, who: str, bank_digest: str) -> Callable[[Entry], Entry]:
    """How the finished adapter is entered."""

    def enter(entry: Entry) -> Entry:
        known = replace(entry, identity=who, bank_digest=bank_digest)
        return ledger.add(known) if ledger else known

    return enter


def _receipt(
    ref: BaseRef, request: ErasureRequest, evaluation: Evaluation | None, seconds: dict[str, float]
) -> Receipt:
    counts = {
        "forget_train": sum(len(person.train) for person in request.people),
        "forget_held_out": sum(len(person.held_out) for person in request.people),
        "retain_train": len(request.retained.train), "retain_held_out": len(request.retained.held_out),
        **({"people": len(request.people)} if len(request.people) > 1 else {}),
    }  # fmt: skip
    cosine = sum(person.anchor.cosine for person in request.people) / len(request.people)
    anchor = {"rule": request.config.anchor.rule, "cosine": round(cosine, 2)}
    figures = summary(evaluation) if evaluation else {}
    return Receipt(
        ref,
        request.config.method,
        request.public_settings,
        anchor,
        counts,
        figures,
        seconds,
        library_versions(),
    )


def _facts(receipt: Receipt, request: ErasureRequest, weights: Path) -> AdapterFacts:
    return AdapterFacts(
        id=receipt.adapter_id,
        method=receipt.method,
        weights_sha256=file_digest(weights),
        bytes=weights.stat().st_size,
        people=receipt.people,
    )


def _write_before_after(path: Path, evaluation: Evaluation) -> None:
    path.touch(mode=0o600)  # it shows the person
    before_after(evaluation).save(path)
