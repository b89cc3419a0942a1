"""What layers see under everybody's conditions, measured once for a base and a bank, and kept: the second
person costs a small solve.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError

from piu_lora.adapter import replacing
from piu_lora.errors import BadInput
from piu_lora.identity import normalize
from piu_lora.jobs.request.request import ErasureRequest
from piu_lora.model import TokenSample, add_second_moments, encoder_digest, layer_inputs
from piu_lora.progress import Progress
from piu_lora.unlearn import statistics_modules

__all__ = ["cache_folder", "measure_bank", "retained_second_moments"]

_log = logging.getLogger("piu_lora")
_BATCH = 64
_VERSION = "4"


def cache_folder() -> Path:
    """``$PIU_LORA_CACHE``, else the user's own cache folder."""
    stated = os.environ.get("PIU_LORA_CACHE")
    if stated:
        return Path(stated)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "piu-lora"


def retained_second_moments(
    pipe: StableDiffusionPipeline, request: ErasureRequest, modules: Sequence[str], progress: Progress
) -> dict[str, torch.Tensor]:
    """``E[x x^T]`` by module, (in, in) float64, under the conditions of the people whom this request trains
    on.

    The cache holds sums over a sample of the *whole* bank, so that it serves every request and singles out
    nobody. What is not to be seen - the forgotten person, those held out - is encoded again and subtracted,
    exactly.

    Args:
        modules: some of ``statistics_modules``.

    Returns:
        Matrices that are the caller's own, to be changed in place if need be.

    Raises:
        BadInput: hardly anybody is left.
    """
    sample, owners = _sample(request)
    train = torch.zeros(len(request.bank), dtype=torch.bool)
    train[list(request.retained.train)] = True
    left_out = sample[~train[owners]]
    kept = len(sample) - len(left_out)
    if kept < 2:
        raise BadInput(
            f"only {kept} embeddings are retained; raise closed.retained={request.config.closed.retained}"
        )
    tokens = TokenSample.of(pipe.tokenizer, request.config.closed.positions)
    everybody = _cached_sums(pipe, request, sample, tokens, progress)
    sums = {module: everybody[module] for module in modules}
    add_second_moments(sums, _inputs(pipe, request, modules, left_out, tokens), -1, tokens)
    return {module: total.div_(kept) for module, total in sums.items()}


def measure_bank(pipe: StableDiffusionPipeline, request: ErasureRequest, progress: Progress) -> None:
    """Measure what is kept for a base and a bank, if it is not kept yet, so that the next request finds it."""
    _cached_sums(
        pipe,
        request,
        _sample(request)[0],
        TokenSample.of(pipe.tokenizer, request.config.closed.positions),
        progress,
    )


def _sample(request: ErasureRequest) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of the whole bank, drawn by the bank's size alone, and the person of each."""
    labels = request.bank.labels
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[
        : request.config.closed.retained
    ]
    return chosen, labels[chosen].long()


def _cached_sums(
    pipe: StableDiffusionPipeline,
    request: ErasureRequest,
    sample: torch.Tensor,
    tokens: TokenSample,
    progress: Progress,
) -> dict[str, torch.Tensor]:
    """Sums over the sample for all of ``statistics_modules``; on disk they are mapped, and only those used
    take memory.
    """
    modules = statistics_modules(pipe)
    sizes = [str(len(sample)), str(request.config.closed.positions)]
    facts = [
        _VERSION,
        encoder_digest(pipe.text_encoder),
        request.bank.digest,
        str(pipe.text_encoder.dtype),
        *sizes,
        *modules,
    ]
    path = (
        cache_folder()
        / "retained"
        / f"{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:32]}.safetensors"
    )
    try:
        stored = safetensors.torch.load_file(path)
        return {module: stored[module] for module in modules}
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError, KeyError) as error:
        _log.warning("the cached statistics are damaged and are measured again: %s", error)
    sums: dict[str, torch.Tensor] = {}
    batches = _inputs(pipe, request, modules, sample, tokens)
    add_second_moments(sums, _told(batches, -(-len(sample) // _BATCH), progress), tokens=tokens)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, mode=0o600) as temporary:
            safetensors.torch.save_file(
                sums, temporary
            )  # straight from memory: bytes of it would take as much again
    except (OSError, SafetensorError) as error:
        _log.warning(
            "the statistics cannot be kept for the next person: %s; set PIU_LORA_CACHE to a folder with room",
            error,
        )
    return sums


def _inputs(
    pipe: StableDiffusionPipeline,
    request: ErasureRequest,
    modules: Sequence[str],
    places: torch.Tensor,
    tokens: TokenSample,
) -> Iterator[dict[str, torch.Tensor]]:
    """What the layers see under these embeddings of the bank, ``_BATCH`` at a time."""
    nothing_drawn = torch.Generator()  # these layers see no latents
    for chunk in places.split(_BATCH) if len(places) else ():
        embeddings = normalize(request.bank.embeddings[chunk])
        yield from layer_inputs(pipe, modules, embeddings, nothing_drawn, batch=_BATCH, tokens=tokens)


def _told(
    batches: Iterator[dict[str, torch.Tensor]], count: int, progress: Progress
) -> Iterator[dict[str, torch.Tensor]]:
    with progress("measure the bank", count) as advance:
        for batch in batches:
            yield batch
            advance(1)
