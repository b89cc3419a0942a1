"""What the adapted layers see: their inputs, sampled on pure noise as PIU trains (section 3.3), without a
single image.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.model.condition import TokenSample, encode_embeddings, encode_empty

__all__ = [
    "add_second_moments",
    "empty_inputs",
    "layer_inputs",
    "layer_weight",
    "second_moments",
    "sees_condition",
]


def sees_condition(module: str) -> bool:
    """Whether a layer's input is the condition itself or comes before it: ``to_k``, ``to_v``, and all of the
    text encoder.
    """
    return module.startswith("text_encoder.") or module.endswith(("attn2.to_k", "attn2.to_v"))


@torch.no_grad()
def layer_inputs(
    pipe: StableDiffusionPipeline,
    modules: Sequence[str],
    embeddings: torch.Tensor,
    generator: torch.Generator,
    *,
    batch: int = 16,
    tokens: TokenSample | None = None,
) -> Iterator[dict[str, torch.Tensor]]:
    """The inputs of layers while the pipeline, as it is, predicts noise for these identities.

    Args:
        modules: names with the component in front. Where only layers before the UNet's latents are asked for,
            the UNet is not run.
        embeddings: (n, d) unit-norm ArcFace vectors.
        generator: CPU generator of latents and timesteps.
        tokens: what is kept of layers that see the condition; all by default. What is left out takes no
            memory.

    Yields:
        For each batch: (b, tokens, in) float32 by module.
    """
    for chunk in embeddings.split(batch):
        with _recorded(pipe, modules, tokens) as record:
            condition = encode_embeddings(pipe.text_encoder, pipe.tokenizer, chunk.to(pipe.device))
            _through_unet(pipe, modules, condition, generator, record)
        yield record.inputs


@torch.no_grad()
def empty_inputs(
    pipe: StableDiffusionPipeline, modules: Sequence[str], generator: torch.Generator
) -> Iterator[dict[str, torch.Tensor]]:
    """What ``layer_inputs`` yields, for the empty prompt, which guides every image: one sample."""
    with _recorded(pipe, modules) as record:
        _through_unet(pipe, modules, encode_empty(pipe.text_encoder, pipe.tokenizer), generator, record)
    yield record.inputs


@dataclass
class _Record:
    """The inputs of layers, cut to the tokens that are asked for."""

    tokens: TokenSample | None
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, module: str, values: torch.Tensor) -> None:
        if self.tokens is not None and sees_condition(module):
            values = self.tokens.of_tokens(values)
        self.inputs[module] = values.detach().float()


def _through_unet(
    pipe: StableDiffusionPipeline,
    modules: Sequence[str],
    condition: torch.Tensor,
    generator: torch.Generator,
    record: _Record,
) -> None:
    if all(sees_condition(module) for module in modules):
        for module in modules:
            if module.startswith("unet."):
                record.add(module, condition)
        return
    config = pipe.unet.config
    size = (
        (config.sample_size, config.sample_size)
        if isinstance(config.sample_size, int)
        else tuple(config.sample_size)
    )
    latents = torch.randn(len(condition), config.in_channels, *size, generator=generator)
    times = torch.randint(pipe.scheduler.config.num_train_timesteps, (len(condition),), generator=generator)
    pipe.unet(latents.to(condition), times.to(condition.device), condition)


@contextmanager
def _recorded(
    pipe: StableDiffusionPipeline, modules: Sequence[str], tokens: TokenSample | None = None
) -> Iterator[_Record]:
    """While open, the inputs of the layers are written down."""
    record = _Record(tokens)

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


def add_second_moments(
    sums: dict[str, torch.Tensor],
    batches: Iterable[dict[str, torch.Tensor]],
    weight: float = 1.0,
    tokens: TokenSample | None = None,
) -> None:
    """Add to ``sums``, in place, ``weight`` times each sample's mean of ``x x^T`` over its tokens.

    Args:
        sums: (in, in) float64 by module, on the CPU; a module that is missing begins at zero.
        tokens: which the batches hold, of layers that see the condition; the mean is over all that they stand
            for.
    """
    for inputs in batches:
        for module, values in inputs.items():
            doubled = values.cpu().double()
            rows = (doubled if tokens is None else tokens.weighed(doubled)).flatten(0, -2)
            total = sums.setdefault(module, torch.zeros(rows.shape[1], rows.shape[1], dtype=rows.dtype))
            total.addmm_(rows.T, rows, alpha=weight * len(values) / len(rows))
