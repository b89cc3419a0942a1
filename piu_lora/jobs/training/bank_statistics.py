"""What layers see under everybody's conditions, measured once for a base and a bank, and kept: the second
person costs a small solve.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from piu_lora.adapter import replacing
from piu_lora.errors import BadInput
from piu_lora.identity import normalize
from piu_lora.jobs.request.request import ErasureRequest
from piu_lora.jobs.request.session import Session
from piu_lora.model import TokenSample, add_second_moments, encoder_digest, layer_inputs
from piu_lora.unlearn import ClosedConfig, Measurement, statistics_modules
from piu_lora.writing import make_folder

__all__ = ["cache_folder", "measure_bank", "retained_averages", "retained_second_moments"]

_log = logging.getLogger("piu_lora")
_BATCH = 64
_VERSION = "4"


def cache_folder() -> Path:
    """``$PIU_LORA_CACHE``, else the user's own cache folder."""
    if folder := os.environ.get("PIU_LORA_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "piu-lora"


def retained_second_moments(
    session: Session, request: ErasureRequest, modules: Sequence[str]
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
    left_out = sample[~_trained_on(request)[owners]]
    count = len(sample) - len(left_out)
    if count < 2:
        raise BadInput(
            f"only {count} embeddings are retained; "
            f"raise closed.retained={request.config.section_of(ClosedConfig).retained}"
        )
    tokens = _tokens(session, request)
    everybody = _cached_sums(session, request, sample, tokens)
    sums = {module: everybody[module] for module in modules}
    add_second_moments(sums, _inputs(session, request, modules, left_out, tokens), -1, tokens)
    return {module: total.div_(count) for module, total in sums.items()}


def measure_bank(session: Session, request: ErasureRequest) -> None:
    """Measure the statistics of a base and a bank and store them, unless they are stored already."""
    _cached_sums(session, request, _sample(request)[0], _tokens(session, request))


def _tokens(session: Session, request: ErasureRequest) -> TokenSample:
    positions = request.config.section_of(ClosedConfig).positions
    return TokenSample.of(session.pipe.tokenizer, positions, prompt=session.family.prompt)


def _sample(request: ErasureRequest) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of the whole bank, drawn by the bank's size alone, and the person of each."""
    labels = request.bank.labels
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[
        : request.config.section_of(ClosedConfig).retained
    ]
    return chosen, labels[chosen].long()


def _cached_sums(
    session: Session, request: ErasureRequest, sample: torch.Tensor, tokens: TokenSample
) -> dict[str, torch.Tensor]:
    """Sums over the sample for all of ``statistics_modules``; on disk they are mapped, and only those used
    take memory.
    """
    modules = statistics_modules(session.pipe)
    sizes = [str(len(sample)), str(request.config.section_of(ClosedConfig).positions)]

    def measure() -> dict[str, torch.Tensor]:
        sums: dict[str, torch.Tensor] = {}
        batches = _inputs(session, request, modules, sample, tokens)
        with session.progress("measure the bank", -(-len(sample) // _BATCH)) as advance:
            add_second_moments(sums, _counted(batches, advance), tokens=tokens)
        return sums

    stored = _cached(session, request, [*sizes, *modules], measure)
    return {module: stored[module] for module in modules}


def retained_averages(
    session: Session, request: ErasureRequest, measurement: Measurement
) -> dict[str, torch.Tensor]:
    """Means of a measurement over the people whom this request trains on, float64, by name.

    The cache holds sums over a sample of the whole bank, as for ``retained_second_moments``; what is not to
    be seen is measured again and subtracted.

    Raises:
        BadInput: hardly anybody is left.
    """
    labels = request.bank.labels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    sample = order[: measurement.samples]
    left_out = sample[~_trained_on(request)[labels[sample].long()]]
    count = len(sample) - len(left_out)
    if count < 2:
        raise BadInput(
            f"only {count} of a sample of {len(sample)} embeddings are retained; raise the number that "
            f"{request.config.method} rests on, or give a larger bank"
        )

    def measure() -> dict[str, torch.Tensor]:
        with session.progress("measure the bank", -(-len(sample) // _BATCH)) as advance:
            return _summed(request, measurement, sample, advance)

    everybody = _cached(session, request, [str(len(sample)), measurement.name], measure)
    hidden = _summed(request, measurement, left_out)
    return {name: (total - hidden.get(name, 0.0)) / count for name, total in everybody.items()}


def _trained_on(request: ErasureRequest) -> torch.Tensor:
    """(people of the bank,) whether this request trains on them."""
    train = torch.zeros(len(request.bank), dtype=torch.bool)
    train[list(request.retained.train)] = True
    return train


def _summed(
    request: ErasureRequest,
    measurement: Measurement,
    rows: torch.Tensor,
    advance: Callable[[int], None] | None = None,
) -> dict[str, torch.Tensor]:
    """A measurement's sums over rows of the bank, ``_BATCH`` at a time; empty for no rows."""
    sums: dict[str, torch.Tensor] = {}
    for chunk in rows.split(_BATCH) if len(rows) else ():
        for name, total in measurement.sums(normalize(request.bank.embeddings[chunk])).items():
            sums[name] = sums[name] + total if name in sums else total
        if advance:
            advance(1)
    return sums


def _cached(
    session: Session,
    request: ErasureRequest,
    facts: Sequence[str],
    measure: Callable[[], dict[str, torch.Tensor]],
) -> dict[str, torch.Tensor]:
    """What was measured before for this base, bank and ``facts``; measured now and stored where it was
    not.
    """
    encoder = session.pipe.text_encoder
    key = [_VERSION, encoder_digest(encoder), request.bank.digest, str(encoder.dtype), *facts]
    name = hashlib.sha256(" ".join(key).encode()).hexdigest()[:32]
    path = cache_folder() / "retained" / f"{name}.safetensors"
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError) as error:
        _log.warning("the cached statistics are damaged and are measured again: %s", error)
    sums = measure()
    try:
        make_folder(path.parent)
        with replacing(path, mode=0o600) as temporary:
            # Straight from memory: bytes of it would take as much again.
            safetensors.torch.save_file(sums, temporary)
    except (OSError, SafetensorError) as error:
        _log.warning(
            "the statistics cannot be kept for the next person: %s; set PIU_LORA_CACHE to a folder with room",
            error,
        )
    return sums


def _inputs(
    session: Session, request: ErasureRequest, modules: Sequence[str], rows: torch.Tensor, tokens: TokenSample
) -> Iterator[dict[str, torch.Tensor]]:
    """What the layers see under these embeddings of the bank, ``_BATCH`` at a time."""
    nothing_drawn = torch.Generator()  # these layers see no latents
    for chunk in rows.split(_BATCH) if len(rows) else ():
        embeddings = normalize(request.bank.embeddings[chunk])
        yield from layer_inputs(session.pipe, modules, embeddings, nothing_drawn, batch=_BATCH, tokens=tokens)


def _counted(
    batches: Iterator[dict[str, torch.Tensor]], advance: Callable[[int], None]
) -> Iterator[dict[str, torch.Tensor]]:
    for batch in batches:
        yield batch
        advance(1)
