"""Training an adapter: attach it, minimise the method's objective, keep what an interrupted run needs."""

import contextlib
import io
import logging
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from piu_lora import interrupts
from piu_lora.adapter import OutputFolder, change_of, write_file
from piu_lora.errors import BadInput
from piu_lora.jobs.request.request import ErasureRequest
from piu_lora.jobs.request.session import Session
from piu_lora.model import (
    adapters_disabled,
    attach,
    checkpointed,
    compiled,
    detach,
    encode_embeddings,
    encode_empty,
    encoder_adapter,
    identity_position,
    parked,
    prompt_of,
    read_weights,
    start_from,
    trainable,
    training_attention,
)
from piu_lora.model.factors import Factors, component
from piu_lora.progress import silent
from piu_lora.unlearn import Method, SingleProcess, TrainedModel, TrainHooks, TrainState, Workers, train

__all__ = ["TrainingRun", "load_checkpoint", "train_change"]

_log = logging.getLogger("piu_lora")
_NAME = "forget"  # of the adapter while it is being trained


@dataclass(frozen=True)
class TrainingRun:
    """What a run of training has beside its request.

    Attributes:
        output: keeps the checkpoint.
        started: where an interrupted run stopped.
        workers: the processes that share each step.
    """

    output: OutputFolder
    started: TrainState | None = None
    workers: Workers = field(default_factory=SingleProcess)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the checkpoint and tells how far it is."""
        return self.workers.rank == 0


def train_change(
    session: Session, request: ErasureRequest, method: Method, start: Mapping[str, Factors], run: TrainingRun
) -> tuple[dict[str, Factors], list[dict[str, float]]]:
    """Train a method's adapter; the same model without it is the teacher. The pipeline is given back as it
    was.

    Args:
        start: the change to begin with; empty for none.

    Returns:
        The change, and the terms of every step's loss.
    """
    assert method.build is not None
    part, pipe = method.component, session.pipe
    model = getattr(pipe, part)
    with _attached(pipe, method, request):
        start_from(model, _NAME, _within(start, part))
        objective = method.build(request.problem, _student(pipe, part), request.config)
        history = _train(objective, trainable(model), session, request, run)
        return change_of(read_weights(model, _NAME), "the trained weights", f"{part}."), history


@contextlib.contextmanager
def _attached(pipe: StableDiffusionPipeline, method: Method, request: ErasureRequest) -> Iterator[None]:
    config = request.config
    if method.component == "text_encoder":
        rank = config.lora.rank
        if method.encoder_rank is not None:
            rank = method.encoder_rank(config, len(request.people))
        with encoder_adapter(pipe.text_encoder, rank, _NAME, config.seed):
            yield
        return
    attach(pipe.unet, config.lora, _NAME, config.seed)
    try:
        yield
    finally:
        detach(pipe.unet, _NAME)


def _within(change: Mapping[str, Factors], part: str) -> dict[str, Factors]:
    """A change by the module names of one component.

    Raises:
        BadInput: it changes another component.
    """
    for module in change:
        if component(module) != part:
            raise BadInput(
                f"the start changes {module!r}, and this method trains the {part} alone; "
                "choose another train.start"
            )
    return {module.removeprefix(f"{part}."): factors for module, factors in change.items()}


def _student(pipe: StableDiffusionPipeline, part: str) -> TrainedModel:
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)

    def encode(embeddings: torch.Tensor) -> torch.Tensor:
        return encode_embeddings(pipe.text_encoder, pipe.tokenizer, embeddings)

    return TrainedModel(
        pipe.unet,
        encode,
        lambda: adapters_disabled(getattr(pipe, part)),
        schedule.add_noise,
        schedule.config.num_train_timesteps,
        lambda: encode_empty(pipe.text_encoder, pipe.tokenizer),
        identity_position(pipe.tokenizer, prompt_of(pipe.text_encoder)),
    )


def _train(
    objective: Any,
    parameters: list[torch.nn.Parameter],
    session: Session,
    request: ErasureRequest,
    run: TrainingRun,
) -> list[dict[str, float]]:
    digest, settings, pipe = request.digest(), request.config.train, session.pipe
    done = run.started.step if run.started else 0

    def save(state: TrainState) -> None:
        if run.is_main:
            _save_checkpoint(run.output, digest, state)

    with contextlib.ExitStack() as stack:
        progress = session.progress if run.is_main else silent
        advance = stack.enter_context(progress("train", settings.steps, done))
        interrupted = stack.enter_context(interrupts.deferred())
        stack.enter_context(training_attention(pipe.unet))
        stack.enter_context(parked(pipe.vae, pipe.unet.device))
        stack.enter_context(checkpointed(pipe.unet, settings.gradient_checkpointing))
        stack.enter_context(compiled(pipe.unet, settings.compile))
        return train(
            objective,
            parameters,
            settings,
            request.config.seed,
            state=run.started,
            workers=run.workers,
            hooks=TrainHooks(lambda step, terms: advance(1, **terms), save, interrupted),
        )


def _save_checkpoint(output: OutputFolder, digest: str, state: TrainState) -> None:
    # Serialised in memory first: on a full disk torch reports no OSError.
    buffer = io.BytesIO()
    torch.save({"case": digest, **asdict(state)}, buffer)
    write_file(output.checkpoint, buffer.getvalue(), mode=0o600)


def load_checkpoint(
    output: OutputFolder, request: ErasureRequest, *, resume: bool, force: bool
) -> TrainState | None:
    """Where an interrupted run of the same settings stopped, if one did.

    Raises:
        BadInput: there is one that was not asked for, a damaged one, or one of other settings.
    """
    path = output.checkpoint
    if not path.exists():
        if resume:
            _log.warning(
                "there is no interrupted run to resume at %s: starting from the first step", output.path
            )
        return None
    if not resume:
        if force:
            path.unlink(missing_ok=True)
            return None
        raise BadInput(
            f"an interrupted run waits for {str(output.path)!r}; "
            "pass resume=True to go on, or force=True to start over"
        )
    try:
        stored = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BadInput(
            f"the checkpoint {str(path)!r} is damaged: {error}; "
            "pass force=True instead of resume=True to start over"
        ) from error
    if stored.pop("case", None) != request.digest():
        raise BadInput(
            f"the interrupted run at {str(output.path)!r} had other settings or another identity; "
            "repeat its command with resume=True, or pass force=True to start over"
        )
    return TrainState(**stored)
