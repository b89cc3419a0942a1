"""The text encoder under many prompts: what the layers that get gates read and write."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.errors import BadInput
from piu_lora.model import encode_tokens, prompt_of
from piu_lora.model.factors import Factors
from piu_lora.unlearn.closed.encoder import edited
from piu_lora.unlearn.gate.readout import SiteMoments, site_sums
from piu_lora.unlearn.gate.settings import GateConfig
from piu_lora.unlearn.gate.streams import Streams, find_layer, record_layer
from piu_lora.unlearn.gate.templates import Templates
from piu_lora.unlearn.registry import Measurement, Rows, SolveContext

__all__ = ["Everybody", "GateEncoder", "Layer", "measure_everybody"]

_TEXTS = 64  # random texts on which every gate stays shut
_ELSEWHERE = 4096  # positions that carry nobody, or are not the identity token
_NOWHERE: Mapping[str, Factors] = {}


@dataclass(frozen=True)
class Layer:
    """A layer of the text encoder: its name without component, its number, and its MLP's two layers."""

    name: str
    module: torch.nn.Module

    @property
    def number(self) -> int:
        """From the first."""
        return int(self.name.rpartition(".")[2])

    @property
    def first(self) -> torch.nn.Linear:
        """``mlp.fc1``."""
        return self._linear("fc1")

    @property
    def second(self) -> torch.nn.Linear:
        """``mlp.fc2``."""
        return self._linear("fc2")

    def _linear(self, name: str) -> torch.nn.Linear:
        layer = self.module.get_submodule(f"mlp.{name}")
        if not isinstance(layer, torch.nn.Linear):
            raise TypeError(f"{self.name}.mlp.{name} is {type(layer).__name__}, no plain layer")
        return layer


@dataclass(frozen=True)
class GateEncoder:
    """The text encoder with the layers that get gates; it is not changed."""

    pipe: StableDiffusionPipeline
    config: GateConfig

    @cached_property
    def decides(self) -> Layer:
        """The layer that tells the person."""
        return Layer(*find_layer(self.pipe.text_encoder, self.config.decides, "gate.decides"))

    @cached_property
    def writes(self) -> Layer:
        """The layer that writes the anchor.

        Raises:
            BadInput: it does not come behind the other.
        """
        layer = Layer(*find_layer(self.pipe.text_encoder, self.config.layer, "gate.layer"))
        if layer.number <= self.decides.number:
            raise BadInput(
                f"gate.layer = {self.config.layer} does not come behind gate.decides = "
                f"{self.config.decides}; attention carries the decision from one to the other"
            )
        return layer

    @cached_property
    def templates(self) -> Templates:
        """The prompts that the gates hold under."""
        count = self.config.prompts if self.config.templates else 1
        prompt = prompt_of(self.pipe.text_encoder)
        return Templates(self.pipe.tokenizer, prompt, count, self.config.templates)

    def streams(
        self,
        layer: Layer,
        embeddings: torch.Tensor,
        numbers: torch.Tensor,
        change: Mapping[str, Factors] = _NOWHERE,
    ) -> Streams:
        """What a layer reads and writes of embeddings (n, d) under templates (n,), with a change in place."""
        return self._recorded(layer, embeddings, self.templates.rows[numbers], change)

    def at_identity(self, embeddings: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """(n, hidden) what the deciding layer's MLP reads at the identity token."""
        return self.streams(self.decides, embeddings, numbers).at(self.templates.positions[numbers])

    def sums(self, embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
        """What ``measure_everybody`` needs of retained people, as sums over embeddings (n, d)."""
        numbers = self.templates.numbers(embeddings)
        streams = self.streams(self.decides, embeddings, numbers)
        sums = site_sums(streams.at(self.templates.positions[numbers]), embeddings)
        return {**dict(zip(_PARTS, sums, strict=True)), "squares": streams.squares * len(embeddings)}

    @property
    def measurement(self) -> Measurement:
        """``sums``, as it is cached for a base and a bank."""
        templates = self.templates
        name = repr(("gate/2", self.decides.name, templates.prompt, templates.count, templates.share))
        return Measurement(name, self.config.retained, self.sums)

    def late_query(self) -> torch.Tensor:
        """(hidden,) the mean query of the writing layer's attention at tokens behind the identity, of nobody
        under every template.
        """
        queries: list[torch.Tensor] = []
        layer, numbers = self.writes, torch.arange(self.templates.count)
        handle = layer.module.get_submodule("self_attn.q_proj").register_forward_hook(
            lambda _module, _arguments, output: queries.append(output.detach().float().cpu())
        )
        try:
            self.streams(layer, torch.zeros(len(numbers), self.pipe.text_encoder.config.hidden_size), numbers)
        finally:
            handle.remove()
        rows = torch.cat(queries)
        behind = torch.arange(rows.shape[1])[None] > self.templates.positions[:, None]
        return rows[behind].mean(dim=0)

    def background(self, layer: Layer) -> torch.Tensor:
        """(m, hidden) what a layer's MLP reads where there is no identity: random texts and the empty
        prompt.
        """
        tokenizer, identity = self.pipe.tokenizer, self.templates.identity
        generator = torch.Generator().manual_seed(0)
        length, width = tokenizer.model_max_length, self.pipe.text_encoder.config.hidden_size
        texts = torch.randint(len(tokenizer) - 2, (_TEXTS, length), generator=generator)
        texts[texts == identity] = (identity + 1) % (len(tokenizer) - 2)
        texts[:, 0] = tokenizer.bos_token_id
        empty = tokenizer("", padding="max_length", max_length=length, return_tensors="pt").input_ids
        rows = torch.cat([texts, empty])
        return self._recorded(layer, torch.zeros(len(rows), width), rows, _NOWHERE).inputs.flatten(0, 1)

    def _recorded(
        self, layer: Layer, embeddings: torch.Tensor, tokens: torch.Tensor, change: Mapping[str, Factors]
    ) -> Streams:
        encoder, identity = self.pipe.text_encoder, self.templates.identity

        def encode(rows: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
            return encode_tokens(encoder, rows, texts, identity)

        with edited(encoder, change):
            return record_layer(layer.module, encode, embeddings.to(self.pipe.device), tokens)


_PARTS = ("gram", "cross", "mean")


@dataclass(frozen=True)
class Everybody:
    """What serves every person to forget.

    Attributes:
        moments: of what the deciding layer reads at the identity token of retained people.
        embeddings: (m, d) of some of them.
        samples: (m, hidden) what it reads at theirs.
        elsewhere: (k, hidden) what it reads at other positions, and in texts without an identity.
        shut: (k, hidden) what the writing layer reads under everybody's conditions and in other texts.
        squares: by layer, deciding and writing, the (width,) mean square of every neuron's activation.
    """

    moments: SiteMoments
    embeddings: torch.Tensor
    samples: torch.Tensor
    elsewhere: torch.Tensor
    shut: torch.Tensor
    squares: tuple[torch.Tensor, torch.Tensor]


def measure_everybody(
    retain: Rows, encoder: GateEncoder, generator: torch.Generator, context: SolveContext | None = None
) -> Everybody:
    """Record what the two layers read of retained people and of texts without an identity.

    Args:
        context: its averages, where it has any, spare the encoding of the retained people.
    """
    templates = encoder.templates
    order = torch.randperm(len(retain), generator=generator)
    sample = retain[order[: encoder.config.checked]]
    numbers = templates.numbers(sample)
    positions = templates.positions[numbers]
    early, late = (encoder.streams(layer, sample, numbers) for layer in (encoder.decides, encoder.writes))
    if context is None or context.averages is None:
        embeddings = retain[order[: encoder.config.retained]]
        means = {name: total / len(embeddings) for name, total in encoder.sums(embeddings).items()}
    else:
        means = context.averages(encoder.measurement)
    elsewhere = early.inputs[torch.arange(early.inputs.shape[1])[None] != positions[:, None]]
    return Everybody(
        SiteMoments(*(means[part] for part in _PARTS)),
        sample,
        early.at(positions),
        torch.cat([encoder.background(encoder.decides), some_of(elsewhere, _ELSEWHERE, generator)]),
        torch.cat(
            [
                encoder.background(encoder.writes),
                some_of(late.inputs.flatten(0, 1), 4 * _ELSEWHERE, generator),
                *([] if templates.count < 2 else [_under_the_familys_own(encoder, sample, generator)]),
            ]
        ),
        (means["squares"], late.squares),
    )


def _under_the_familys_own(
    encoder: GateEncoder, sample: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """(k, hidden) what the writing layer reads of people under the prompt that nearly everybody uses."""
    official = torch.zeros(len(sample), dtype=torch.long)
    rows = encoder.streams(encoder.writes, sample, official).inputs
    return some_of(rows.flatten(0, 1), 4 * _ELSEWHERE, generator)


def some_of(rows: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """At most ``count`` rows, at random."""
    return rows[torch.randperm(len(rows), generator=generator)[:count]]
