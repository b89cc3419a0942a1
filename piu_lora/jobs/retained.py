"""What layers see under everybody's conditions, measured once for a base and a bank, and kept: the second person costs a small solve."""

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from safetensors import SafetensorError

from piu_lora.adapter import write_file
from piu_lora.errors import BadInput
from piu_lora.identity import normalize
from piu_lora.jobs.case import Case
from piu_lora.model import encoder_digest, layer_inputs, spread_positions
from piu_lora.progress import Progress
from piu_lora.unlearn import statistics_modules

__all__ = ["cache_folder", "retained_moments"]

_log = logging.getLogger("piu_lora")
_BATCH = 64
_VERSION = "2"


def cache_folder() -> Path:
    """``$PIU_LORA_CACHE``, else the user's own cache folder."""
    stated = os.environ.get("PIU_LORA_CACHE")
    if stated:
        return Path(stated)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "piu-lora"


def retained_moments(pipe: StableDiffusionPipeline, case: Case, progress: Progress) -> dict[str, torch.Tensor]:
    """``E[x x^T]`` by module, (in, in) float64, under the conditions of the people whom this request trains on.

    The cache holds sums over a sample of the *whole* bank, so that it serves every request and singles out nobody. What is
    not to be seen - the forgotten person, those held out - is encoded again and subtracted, exactly.

    Raises:
        BadInput: hardly anybody is left.
    """
    modules = statistics_modules(pipe)
    sample, owners = _sample(case)
    total, count = _cached_sums(pipe, case, modules, sample, progress)
    train = torch.zeros(len(case.bank), dtype=torch.bool)
    train[list(case.retained.train)] = True
    left_out = sample[~train[owners]]
    if len(sample) - len(left_out) < 2:
        raise BadInput(
            f"only {len(sample) - len(left_out)} embeddings are retained; raise --set closed.retained={case.config.closed.retained}"
        )
    minus, fewer = _sums(pipe, modules, case, left_out, None)
    return {module: (total[module] - minus.get(module, 0)) / (count[module] - fewer.get(module, 0)) for module in modules}


def _sample(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of the whole bank, drawn by the bank's size alone, and the person of each."""
    labels = case.bank.labels
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[: case.config.closed.retained]
    return chosen, labels[chosen].long()


def _cached_sums(
    pipe: StableDiffusionPipeline, case: Case, modules: list[str], sample: torch.Tensor, progress: Progress
) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    sizes = [str(len(sample)), str(case.config.closed.positions)]
    facts = [_VERSION, encoder_digest(pipe.text_encoder), case.bank.digest, str(pipe.text_encoder.dtype), *sizes, *modules]
    path = cache_folder() / "retained" / f"{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:32]}.safetensors"
    try:
        stored = safetensors.torch.load(path.read_bytes())
        return {module: stored[module] for module in modules}, {module: int(stored[f"{module}.count"]) for module in modules}
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError, KeyError) as error:
        _log.warning("the cached statistics are damaged and are measured again: %s", error)
    sums, counts = _sums(pipe, modules, case, sample, progress)
    tensors = {**sums, **{f"{module}.count": torch.tensor(count) for module, count in counts.items()}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, safetensors.torch.save(tensors), mode=0o600)
    except OSError as error:
        _log.warning("the statistics cannot be kept for the next person: %s; set PIU_LORA_CACHE to a folder with room", error)
    return sums, counts


def _sums(
    pipe: StableDiffusionPipeline, modules: list[str], case: Case, places: torch.Tensor, progress: Progress | None
) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """``sum x x^T`` over embeddings and tokens by module, in float64, streamed; and how many x there were."""
    generator = torch.Generator().manual_seed(0)  # of nothing: these layers see no latents
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        for chunk in places.split(_BATCH):
            yield from layer_inputs(pipe, modules, normalize(case.bank.embeddings[chunk]), generator, batch=_BATCH)

    for seen in _told(batches(), -(-len(places) // _BATCH), progress):
        for module, values in seen.items():
            x = spread_positions(values, case.config.closed.positions).flatten(0, -2).double().cpu()
            sums[module] = sums.get(module, 0) + x.T @ x
            counts[module] = counts.get(module, 0) + len(x)
    return sums, counts


def _told(batches: Iterator[dict[str, torch.Tensor]], count: int, progress: Progress | None) -> Iterator[dict[str, torch.Tensor]]:
    if progress is None:
        yield from batches
        return
    with progress("measure the bank", count) as advance:
        for batch in batches:
            yield batch
            advance(1)
