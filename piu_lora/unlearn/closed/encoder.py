"""closed-encoder: the text encoder's MLPs write the anchor's condition where the forgotten person's embedding
was read.

After MEMIT (mass-editing of key-value memories, arXiv 2210.07229, section 4): each layer's ``mlp.fc2`` is a
linear memory whose keys are its inputs; the change wanted of the last residual stream is spread over the
layers that are edited.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from transformers import CLIPTextModel

from piu_lora.model.factors import Factors
from piu_lora.unlearn.closed.solve import Edit, SecondMoments

__all__ = ["edited", "encoder_modules", "solve_encoder"]

_PREFIX = "text_encoder."
Encode = Callable[[torch.Tensor], torch.Tensor]


def encoder_modules(text_encoder: CLIPTextModel, layers: int) -> list[str]:
    """``text_encoder....mlp.fc2`` of the last ``layers`` layers, or of all for 0."""
    modules = [f"{_PREFIX}{name}" for name, _ in text_encoder.named_modules() if name.endswith("mlp.fc2")]
    return modules[-layers:] if layers else modules


def solve_encoder(
    text_encoder: CLIPTextModel,
    encode: Encode,
    modules: Sequence[str],
    people: Sequence[tuple[torch.Tensor, torch.Tensor]],
    first: int,
    eta: float,
    solve: Callable[[str, SecondMoments], Edit],
) -> dict[str, Edit]:
    """One layer after the other, each with the keys and the error that the layers before it leave.

    Args:
        encode: embeddings (n, d) -> conditions, through ``text_encoder``.
        modules: the layers, in order.
        people: mixtures (n, d) of each forgotten person, and their anchor (d,).
        first: the first token position that carries the identity.
        eta: the wanted residual stream is ``h(anchor) - eta (h(forgotten) - h(anchor))``.
        solve: the ridge regression of a layer.
    """
    targets = [_wanted(text_encoder, encode, mixtures, anchor, eta, first) for mixtures, anchor in people]
    edits: dict[str, Edit] = {}
    for index, module in enumerate(modules):
        moments = SecondMoments.empty(
            *text_encoder.get_parameter(f"{module.removeprefix(_PREFIX)}.weight").shape
        )
        with edited(text_encoder, {name: edit.factors for name, edit in edits.items()}):
            for (mixtures, _), target in zip(people, targets, strict=True):
                keys, stream = _recorded(text_encoder, encode, mixtures, module)
                error = (target - stream[:, first:]) / (len(modules) - index)
                moments.add(keys[:, first:].flatten(0, 1), error.flatten(0, 1))
        edits[module] = solve(module, moments)
    return edits


def _wanted(
    text_encoder: CLIPTextModel,
    encode: Encode,
    mixtures: torch.Tensor,
    anchor: torch.Tensor,
    eta: float,
    first: int,
) -> torch.Tensor:
    last = _PREFIX + "final_layer_norm"
    at_forgotten, at_anchor = (
        _recorded(text_encoder, encode, embeddings, last)[1] for embeddings in (mixtures, anchor[None])
    )
    return (at_anchor - eta * (at_forgotten - at_anchor))[:, first:]


@torch.no_grad()
def _recorded(
    text_encoder: CLIPTextModel, encode: Encode, embeddings: torch.Tensor, module: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of a layer and of the last LayerNorm, (n, tokens, width) each."""
    recorded: dict[str, torch.Tensor] = {}
    names = (module.removeprefix(_PREFIX), "final_layer_norm")

    def recorder(name: str):  # type: ignore[no-untyped-def]
        def hook(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            recorded[name] = inputs[0].detach().float()

        return hook

    handles = [
        text_encoder.get_submodule(name).register_forward_pre_hook(recorder(name))
        for name in dict.fromkeys(names)
    ]
    try:
        encode(embeddings)
    finally:
        for handle in handles:
            handle.remove()
    return recorded[names[0]], recorded[names[1]]


@contextmanager
def edited(text_encoder: CLIPTextModel, change: Mapping[str, Factors]) -> Iterator[None]:
    """While open, layers of the encoder answer with their change; its weights are not touched."""

    def adder(factors: Factors):  # type: ignore[no-untyped-def]
        def hook(
            _layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
        ) -> torch.Tensor:
            return output + inputs[0] @ factors.down.to(inputs[0]).T @ factors.up.to(inputs[0]).T

        return hook

    handles = [
        text_encoder.get_submodule(name.removeprefix(_PREFIX)).register_forward_hook(adder(f))
        for name, f in change.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
