"""What the adapted layers see: their inputs, sampled on pure noise as PIU trains (section 3.3), without a single image."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.model.condition import encode_embeddings, encode_empty, identity_position

__all__ = [
    "add_second_moments",
    "empty_inputs",
    "layer_inputs",
    "layer_weight",
    "second_moments",
    "sees_condition",
]


def sees_condition(module: str) -> bool:
    """Whether a layer's input is the condition itself or comes before it: ``to_k``, ``to_v``, and all of the text encoder."""
    return module.startswith("text_encoder.") or module.endswith(("attn2.to_k", "attn2.to_v"))


@torch.no_grad()
def layer_inputs(
    pipe: StableDiffusionPipeline, modules: Sequence[str], embeddings: torch.Tensor, generator: torch.Generator, *,
    batch: int = 16, from_identity: bool = False, positions: int = 0,
) -> Iterator[dict[str, torch.Tensor]]:  # fmt: skip
    """The inputs of layers while the pipeline, as it is, predicts noise for these identities.

    Args:
        modules: names with the component in front. Where only layers before the UNet's latents are asked for, the UNet is not run.
        embeddings: (n, d) unit-norm ArcFace vectors.
        generator: CPU generator of latents and timesteps.
        from_identity: only the token positions that carry the identity, in layers that see the condition.
        positions: at most so many of them, see ``spread_positions``; 0 keeps all. What is left out takes no memory.

    Yields:
        For each batch: (b, tokens, in) float32 by module.
    """
    first = identity_position(pipe.tokenizer) if from_identity else 0
    for chunk in embeddings.split(batch):
        with _recorded(pipe, modules, first, positions) as record:
            condition = encode_embeddings(pipe.text_encoder, pipe.tokenizer, chunk.to(pipe.device))
            _through_unet(pipe, modules, condition, generator, record)
        yield record.seen


@torch.no_grad()
def empty_inputs(pipe: StableDiffusionPipeline, modules: Sequence[str], generator: torch.Generator) -> Iterator[dict[str, torch.Tensor]]:
    """The same for the empty prompt, which guides every image: one sample."""
    with _recorded(pipe, modules) as record:
        _through_unet(pipe, modules, encode_empty(pipe.text_encoder, pipe.tokenizer), generator, record)
    yield record.seen


@dataclass
class _Record:
    """The inputs of layers, cut to the token positions that are asked for."""

    first: int
    positions: int
    seen: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, module: str, values: torch.Tensor) -> None:
        if sees_condition(module):
            values = values[:, self.first :]
        self.seen[module] = spread_positions(values, self.positions).detach().float()


def _through_unet(
    pipe: StableDiffusionPipeline, modules: Sequence[str], condition: torch.Tensor, generator: torch.Generator, record: _Record
) -> None:
    if all(sees_condition(module) for module in modules):
        for module in modules:
            if module.startswith("unet."):
                record.add(module, condition)
        return
    config = pipe.unet.config
    size = (config.sample_size, config.sample_size) if isinstance(config.sample_size, int) else tuple(config.sample_size)
    latents = torch.randn(len(condition), config.in_channels, *size, generator=generator)
    times = torch.randint(pipe.scheduler.config.num_train_timesteps, (len(condition),), generator=generator)
    pipe.unet(latents.to(condition), times.to(condition.device), condition)


@contextmanager
def _recorded(pipe: StableDiffusionPipeline, modules: Sequence[str], first: int = 0, positions: int = 0) -> Iterator[_Record]:
    """While open, the inputs of the layers are written down."""
    record = _Record(first, positions)

    def recorder(module: str):  # type: ignore[no-untyped-def]
        def hook(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            record.add(module, inputs[0])

        return hook

    handles = [_layer(pipe, module).register_forward_pre_hook(recorder(module)) for module in modules]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _layer(pipe: StableDiffusionPipeline, module: str) -> torch.nn.Module:
    part, name = module.split(".", 1)
    layer: torch.nn.Module = getattr(pipe, part).get_submodule(name)
    return layer


def layer_weight(pipe: StableDiffusionPipeline, module: str) -> torch.Tensor:
    """The base's weight of a layer, (out, in); adapters that are attached are looked through."""
    layer: Any = _layer(pipe, module)
    weight: torch.Tensor = getattr(layer, "base_layer", layer).weight
    return weight.detach()


def second_moments(batches: Iterable[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """``E[x x^T]`` over samples and tokens by module, (in, in) float64 on the CPU, streamed."""
    sums: dict[str, torch.Tensor] = {}
    samples = 0
    for inputs in batches:
        add_second_moments(sums, [inputs])
        samples += len(next(iter(inputs.values())))
    return {module: total.div_(samples) for module, total in sums.items()}


def add_second_moments(sums: dict[str, torch.Tensor], batches: Iterable[dict[str, torch.Tensor]], weight: float = 1.0) -> None:
    """Add to ``sums``, in place, ``weight`` times each sample's mean of ``x x^T`` over its tokens.

    Args:
        sums: (in, in) float64 by module, on the CPU; a module that is missing begins at zero.
    """
    for inputs in batches:
        for module, values in inputs.items():
            rows = values.flatten(0, -2).double().cpu()
            total = sums.setdefault(module, torch.zeros(rows.shape[1], rows.shape[1], dtype=rows.dtype))
            total.addmm_(rows.T, rows, alpha=weight * len(values) / len(rows))


def spread_positions(values: torch.Tensor, count: int) -> torch.Tensor:
    """At most ``count`` token positions of (n, tokens, width), evenly spread from the first to the last; all for 0.

    Most of CLIP's 77 positions are padding, whose activations hardly differ.
    """
    tokens = values.shape[-2]
    if not count or tokens <= count:
        return values
    places = torch.linspace(0, tokens - 1, count, device=values.device).round().long()
    return values.index_select(-2, places)
