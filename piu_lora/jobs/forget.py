"""The job: forget one person and leave an adapter folder. Read it from top to bottom."""

import contextlib
import io
import logging
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from piu_lora.adapter import BaseRef, Entry, Ledger, OutputFolder, Receipt, change_of, library_versions, write_adapter, write_file
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, Incompatible
from piu_lora.evidence import Evaluation, before_after, loss_curves, measure_probe, probe_facts, report_json, summary
from piu_lora.identity import IdentityBank
from piu_lora.jobs.case import Case, bank_for, open_case, score
from piu_lora.jobs.ledger import bank_text, identity_text, registered
from piu_lora.jobs.readers import reader_for
from piu_lora.jobs.workers import is_main, launched_workers
from piu_lora.model import (
    DTYPES,
    adapters_off,
    attach,
    attention_digest,
    checkpointed,
    compiled,
    describe,
    detach,
    encode_embeddings,
    encoder_digest,
    family_of,
    load_base,
    parked,
    read_weights,
    trainable,
    training_attention,
    write_weights,
)
from piu_lora.progress import Progress, silent
from piu_lora.unlearn import Problem, Student, TrainState, Workers, find_method, train

__all__ = ["ForgetResult", "forget"]

_log = logging.getLogger("piu_lora")
_NAME = "forget"  # of the adapter while it is being trained
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ForgetResult:
    """The finished adapter folder, its receipt, and the evaluation with its pictures."""

    path: Path
    receipt: Receipt
    evaluation: Evaluation | None


def forget(
    identity: str | Path,
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
    """Make an adapter that turns one identity into its anchor and leaves everybody else alone.

    Args:
        identity: a bank id, a photograph, a folder of photographs, or a .npy/.safetensors file of (n, d) embeddings.
        base: ``mini``, ``arc2face``, a folder, a Hub id, or a loaded pipeline (given back as it was). A base given by name is cast to
            ``train.precision``; a pipeline keeps its own dtype: float32 for every precision, or float16 for fp16.
        out: the adapter folder to create.
        bank: the people to retain; the embedded one by default for ``mini``.
        pack: folder of the face detector and recognizer that read photographs and score; by default where ``bank models`` puts it.
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
    case = open_case(identity, bank_for(base, bank), config, reader_for(base, pack, config.faces, device))
    with output.claimed() if is_main() else contextlib.nullcontext():
        started = _load_checkpoint(output, case, resume=resume, force=force)

        # 2. Load the base, and make sure that it speaks the bank's language.
        pipe = base if isinstance(base, StableDiffusionPipeline) else load_base(base, device=device)
        ref = _check_base(pipe, case)
        if pipe is not base and config.train.precision != "fp32":
            pipe.to(dtype=DTYPES[config.train.precision])
        workers = launched_workers(pipe.unet.device)

        # 3. Train the adapter; the same UNet without it is the teacher.
        begun = time.perf_counter()
        attach(pipe.unet, config.lora, _NAME, config.seed)
        try:
            problem = Problem(case.forget_train, case.anchor.embedding, case.retain_train)
            objective = method.build(problem, _student(pipe), config)
            history = _train(objective, pipe, case, output, started, workers, progress)
            trained = time.perf_counter()

            # 4. Score what will be stored, not what was trained: half precision.
            weights = {key: value.half().float() for key, value in read_weights(pipe.unet, _NAME).items()}
            write_weights(pipe.unet, _NAME, weights)
            evaluation = score(pipe, case, progress) if evaluate and workers.rank == 0 else None
            probe = probe_facts(measure_probe(pipe, lambda: adapters_off(pipe.unet)))
        finally:
            detach(pipe.unet, _NAME)

        # 5. Write the folder, complete or not at all; of several processes, the first one does.
        seconds = {"train": round(trained - begun, 1), "evaluate": round(time.perf_counter() - trained, 1)}
        receipt = replace(_receipt(ref, case, evaluation, seconds), probe=probe)
        if workers.rank > 0:
            return ForgetResult(output.path, receipt, None)
        # An id of the bank goes before a path of that name, here as in the case: the entry must not name another person.
        who = str(identity) if case.subject.row is not None else identity_text(identity)
        enter = _enter(ledger, who, case.bank.digest)
        with registered(ledger, receipt, output.path, who, bank_text(bank), enter) as confirm, output.staged() as folder:
            (folder / "report").mkdir()
            if evaluation is not None:
                _write_evaluation(folder / "report", evaluation, receipt.settings)
            loss_curves(history, folder / "report" / "loss.png")
            receipt = write_adapter(folder, change_of(weights, "the trained weights", "unet."), receipt)
            confirm(receipt)
    return ForgetResult(output.path, receipt, evaluation)


def _check_base(pipe: StableDiffusionPipeline, case: Case) -> BaseRef:
    info = describe(pipe)
    if case.bank.width != info.embedding_width:
        raise Incompatible(
            f"the bank holds embeddings of width {case.bank.width}, the base {info.id!r} takes {info.embedding_width}; "
            "build the bank with the recognizer of the base"
        )
    case.bank.recognizer.require(info.recognizer, "the bank", f"the base {info.id!r}")
    dtype, precision = pipe.unet.dtype, case.config.train.precision
    if dtype == torch.bfloat16:
        raise BadInput(
            "the pipeline is in bfloat16, which has lost digits of the base's digest; load it in float32: "
            "with train.precision = 'bf16' it computes in bfloat16 all the same"
        )
    if dtype not in (torch.float32, DTYPES[precision]):
        raise BadInput(f"the pipeline is in {dtype}, not train.precision = {precision!r}; load it in float32")
    if pipe.get_list_adapters():
        raise BadInput(f"the pipeline carries adapters already ({pipe.get_list_adapters()}); pass a base without any")
    return BaseRef(info.id, info.family, attention_digest(pipe.unet), info.revision, encoder_digest(pipe.text_encoder))


def _student(pipe: StableDiffusionPipeline) -> Student:
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)

    def encode(embeddings: torch.Tensor) -> torch.Tensor:
        return encode_embeddings(pipe.text_encoder, pipe.tokenizer, embeddings)

    return Student(pipe.unet, encode, lambda: adapters_off(pipe.unet), schedule.add_noise, schedule.config.num_train_timesteps)


def _train(
    objective: Any, pipe: StableDiffusionPipeline, case: Case, output: OutputFolder, started: TrainState | None, workers: Workers,
    progress: Progress,
) -> list[dict[str, float]]:  # fmt: skip
    digest, settings = case.digest(), case.config.train
    main = workers.rank == 0

    def save(state: TrainState) -> None:
        if main:
            _save_checkpoint(output, digest, state)

    with contextlib.ExitStack() as stack:
        advance = stack.enter_context((progress if main else silent)("train", settings.steps, started.step if started else 0))
        interrupted = stack.enter_context(_interruptible())
        stack.enter_context(training_attention(pipe.unet))
        stack.enter_context(parked(pipe.vae, pipe.unet.device))
        stack.enter_context(checkpointed(pipe.unet, settings.gradient_checkpointing))
        stack.enter_context(compiled(pipe.unet, settings.compile))
        return train(
            objective, trainable(pipe.unet), settings, case.config.seed, state=started, workers=workers,
            on_step=lambda step, terms: advance(1, **terms), on_checkpoint=save, should_stop=interrupted,
        )  # fmt: skip


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """While open, the first Ctrl-C asks to stop after the step at hand; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handle)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, previous)


def _save_checkpoint(output: OutputFolder, digest: str, state: TrainState) -> None:
    # Serialised in memory first: on a full disk torch reports no OSError.
    buffer = io.BytesIO()
    torch.save({"case": digest, **asdict(state)}, buffer)
    write_file(output.checkpoint, buffer.getvalue(), mode=0o600)


def _load_checkpoint(output: OutputFolder, case: Case, *, resume: bool, force: bool) -> TrainState | None:
    path = output.checkpoint
    if not path.exists():
        if resume:
            _log.warning("there is no interrupted run to resume at %s: starting from the first step", output.path)
        return None
    if not resume:
        if force:
            path.unlink(missing_ok=True)
            return None
        raise BadInput(f"an interrupted run waits for {str(output.path)!r}; pass --resume to go on, or --force to start over")
    try:
        stored = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BadInput(f"the checkpoint {str(path)!r} is damaged: {error}; pass --force instead of --resume to start over") from error
    if stored.pop("case", None) != case.digest():
        raise BadInput(
            f"the interrupted run at {str(output.path)!r} had other settings or another identity; "
            "repeat its command with --resume, or pass --force to start over"
        )
    return TrainState(**stored)


def _enter(ledger: Ledger | None, who: str, bank_digest: str) -> Callable[[Entry], Entry]:
    """How the finished adapter is entered."""

    def enter(entry: Entry) -> Entry:
        known = replace(entry, identity=who, bank_digest=bank_digest)
        return ledger.add(known) if ledger else known

    return enter


def _receipt(ref: BaseRef, case: Case, evaluation: Evaluation | None, seconds: dict[str, float]) -> Receipt:
    counts = {
        "forget_train": len(case.split.forget_train), "forget_held_out": len(case.split.forget_held_out),
        "retain_train": len(case.split.retain_train), "retain_held_out": len(case.split.retain_held_out),
    }  # fmt: skip
    anchor = {"rule": case.config.anchor.rule, "cosine": round(case.anchor.cosine, 2)}
    figures = summary(evaluation) if evaluation else {}
    return Receipt(ref, case.config.method, case.public_settings, anchor, counts, figures, seconds, library_versions())


def _write_evaluation(folder: Path, evaluation: Evaluation, settings: dict[str, Any]) -> None:
    (folder / "report.json").write_text(report_json(evaluation, settings))
    before_after(evaluation).save(folder / "before_after.png")
