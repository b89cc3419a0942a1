"""What the adapted layers see: their inputs, sampled on pure noise as PIU trains (section 3.3), without a single image."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.model.condition import encode_embeddings, encode_empty, identity_position

__all__ = ["empty_inputs", "layer_inputs", "layer_weight", "second_moments", "sees_condition", "spread_positions"]


def sees_condition(module: str) -> bool:
    """Whether a layer's input is the condition itself or comes before it: ``to_k``, ``to_v``, and all of the text encoder."""
    return module.startswith("text_encoder.") or module.endswith(("attn2.to_k", "attn2.to_v"))


@torch.no_grad()
def layer_inputs(
    pipe: StableDiffusionPipeline, modules: Sequence[str], embeddings: torch.Tensor, generator: torch.Generator, *,
    batch: int = 16, from_identity: bool = False,
) -> Iterator[dict[str, torch.Tensor]]:  # fmt: skip
    """The inputs of layers while the pipeline, as it is, predicts noise for these identities.

    Args:
        modules: names with the component in front. Where only layers before the UNet's latents are asked for, the UNet is not run.
        embeddings: (n, d) unit-norm ArcFace vectors.
        generator: CPU generator of latents and timesteps.
        from_identity: only the token positions that carry the identity, in layers that see the condition.

    Yields:
        For each batch: (b, tokens, in) float32 by module.
    """
    for chunk in embeddings.split(batch):
        with _recorded(pipe, modules) as seen:
            condition = encode_embeddings(pipe.text_encoder, pipe.tokenizer, chunk.to(pipe.device))
            _through_unet(pipe, modules, condition, generator, seen)
        first = identity_position(pipe.tokenizer) if from_identity else 0
        yield {module: seen[module][:, first:] if sees_condition(module) else seen[module] for module in modules}


@torch.no_grad()
def empty_inputs(pipe: StableDiffusionPipeline, modules: Sequence[str], generator: torch.Generator) -> Iterator[dict[str, torch.Tensor]]:
    """The same for the empty prompt, which guides every image: one sample."""
    with _recorded(pipe, modules) as seen:
        _through_unet(pipe, modules, encode_empty(pipe.text_encoder, pipe.tokenizer), generator, seen)
    yield seen


def _through_unet(
    pipe: StableDiffusionPipeline,
    modules: Sequence[str],
    condition: torch.Tensor,
    generator: torch.Generator,
    seen: dict[str, torch.Tensor],
) -> None:
    if all(sees_condition(module) for module in modules):
        seen.update({module: condition.float() for module in modules if module.startswith("unet.")})
        return
    config = pipe.unet.config
    size = (config.sample_size, config.sample_size) if isinstance(config.sample_size, int) else tuple(config.sample_size)
    latents = torch.randn(len(condition), config.in_channels, *size, generator=generator)
    times = torch.randint(pipe.scheduler.config.num_train_timesteps, (len(condition),), generator=generator)
    pipe.unet(latents.to(condition), times.to(condition.device), condition)


@contextmanager
def _recorded(pipe: StableDiffusionPipeline, modules: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """While open, the inputs of the layers are written down."""
    seen: dict[str, torch.Tensor] = {}

    def recorder(module: str):  # type: ignore[no-untyped-def]
        def hook(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen[module] = inputs[0].detach().float()

        return hook

    handles = [_layer(pipe, module).register_forward_pre_hook(recorder(module)) for module in modules]
    try:
        yield seen
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


def second_moments(batches: Iterable[dict[str, torch.Tensor]], positions: int = 0) -> dict[str, torch.Tensor]:
    """``E[x x^T]`` over samples and tokens by module, (in, in) float64, streamed.

    Args:
        positions: as for ``spread_positions``; 0 takes all.
    """
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    for inputs in batches:
        for module, values in inputs.items():
            rows = spread_positions(values, positions).flatten(0, -2).double()
            sums[module] = sums.get(module, 0) + rows.T @ rows
            counts[module] = counts.get(module, 0) + len(rows)
    return {module: total / counts[module] for module, total in sums.items()}


def spread_positions(values: torch.Tensor, count: int) -> torch.Tensor:
    """At most ``count`` token positions of (n, tokens, width), evenly spread from the first to the last; all for 0.

    Most of CLIP's 77 positions are padding, whose activations hardly differ.
    """
    tokens = values.shape[-2]
    if not count or tokens <= count:
        return values
    places = torch.linspace(0, tokens - 1, count, device=values.device).round().long()
    return values.index_select(-2, places)
