"""The text encoder under the templates of its prompt: what the layer that gets gates reads and writes."""

from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.model import Prompt, TokenSample, encode_embeddings, encode_empty, identity_position, prompt_of
from piu_lora.unlearn.gate.cells import Site
from piu_lora.unlearn.gate.readout import SiteMoments, site_sums
from piu_lora.unlearn.gate.settings import GateConfig
from piu_lora.unlearn.gate.solve import Everybody, Recording
from piu_lora.unlearn.gate.streams import Streams, find_layer, record_layer
from piu_lora.unlearn.registry import Measurement, Rows, SolveContext

__all__ = ["GateEncoder", "measure_everybody"]

_SHARE = 4  # further templates are shown one embedding in four
_FURTHER = 4  # positions of a further template beyond as many as the official one's sample has
_TEXTS = 64  # random texts on which every gate stays shut
_BACKGROUND = 1024  # of their positions


@dataclass(frozen=True)
class GateEncoder:
    """The text encoder with the layer that gets gates; it is not changed."""

    pipe: StableDiffusionPipeline
    config: GateConfig

    @cached_property
    def layer(self) -> tuple[str, torch.nn.Module]:
        """Its name inside the text encoder, and the layer."""
        return find_layer(self.pipe.text_encoder, self.config.layer)

    @property
    def number(self) -> int:
        """Of the layer, from the first."""
        return int(self.layer[0].rpartition(".")[2])

    @cached_property
    def templates(self) -> tuple[Prompt, ...]:
        """The family's own first."""
        official = prompt_of(self.pipe.text_encoder)
        further = [text for text in self.config.templates if text != official.text]
        return (official, *(Prompt(text, official.token) for text in further))

    def streams(self, embeddings: torch.Tensor, template: Prompt) -> Streams:
        """What the layer reads and writes of embeddings (n, d)."""
        pipe = self.pipe

        def encode(rows: torch.Tensor) -> torch.Tensor:
            return encode_embeddings(pipe.text_encoder, pipe.tokenizer, rows, template)

        return record_layer(self.layer[1], encode, embeddings.to(pipe.device))

    def record(self, embeddings: torch.Tensor, centre: torch.Tensor) -> Recording:
        """The official template is shown all embeddings, the others the first part of them."""
        part = embeddings[: max(len(embeddings) // _SHARE, 2)]
        official, *further = self.templates
        streams = [self.streams(embeddings, official), *(self.streams(part, other) for other in further)]
        return Recording(embeddings @ centre, streams)

    @cached_property
    def sites(self) -> list[Site]:
        """Positions that carry the identity: of the official template a sample that stands for all, of the
        others the first few.
        """
        tokenizer, (official, *further) = self.pipe.tokenizer, self.templates
        sample = TokenSample.of(tokenizer, self.config.positions, from_identity=True, prompt=official)
        sites = [Site(0, position) for position in sample.places]
        for number, template in enumerate(further, start=1):
            first = identity_position(tokenizer, template)
            last = min(first + len(sample.places) + _FURTHER, tokenizer.model_max_length)
            sites += [Site(number, position) for position in range(first, last)]
        return sites

    def sums(self, embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
        """What ``measure_everybody`` needs of retained people, as sums over embeddings (n, d)."""
        streams = [self.streams(embeddings, template) for template in self.templates]
        sums = {"squares": streams[0].squares * len(embeddings)}
        for site in self.sites:
            inputs = streams[site.template].inputs[:, site.position]
            for part, total in zip(_PARTS, site_sums(inputs, embeddings), strict=True):
                sums[_key(site, part)] = total
        return sums

    @property
    def measurement(self) -> Measurement:
        """``sums``, as it is cached for a base and a bank."""
        name = repr(("gate", self.layer[0], self.templates, self.sites))
        return Measurement(name, self.config.retained, self.sums)

    def background(self, generator: torch.Generator) -> torch.Tensor:
        """Inputs (m, hidden) where there is no identity: random texts, the empty prompt, the words before the
        identity token.
        """
        pipe, tokenizer, layer = self.pipe, self.pipe.tokenizer, self.layer[1]
        nobody = torch.zeros(1, 1, device=pipe.device)
        before = [
            self.streams(nobody, template).inputs[0, : identity_position(tokenizer, template)]
            for template in self.templates
        ]
        empty = record_layer(layer, lambda _: encode_empty(pipe.text_encoder, tokenizer), nobody).inputs[0]
        tokens = torch.randint(len(tokenizer) - 2, (_TEXTS, tokenizer.model_max_length), generator=generator)
        tokens[:, 0] = tokenizer.bos_token_id
        texts = record_layer(layer, lambda rows: pipe.text_encoder(input_ids=rows), tokens.to(pipe.device))
        rows = texts.inputs.flatten(0, 1)
        return torch.cat([*before, empty, rows[:: max(len(rows) // _BACKGROUND, 1)]])


_PARTS = ("gram", "cross", "mean")


def _key(site: Site, part: str) -> str:
    return f"{site.template}.{site.position}.{part}"


def measure_everybody(
    retain: Rows, encoder: GateEncoder, generator: torch.Generator, context: SolveContext | None = None
) -> Everybody:
    """What serves every person to forget: moments of retained people at every position, some of their inputs,
    and inputs where no identity is.

    Args:
        context: its averages, where it has any, spare the encoding of the retained people.
    """
    background = encoder.background(generator)
    order = torch.randperm(len(retain), generator=generator)
    sample = retain[order[: encoder.config.checked]]
    recording = encoder.record(sample, sample[0])
    if context is None or context.averages is None:
        embeddings = retain[order[: encoder.config.retained]]
        means = {name: total / len(embeddings) for name, total in encoder.sums(embeddings).items()}
    else:
        means = context.averages(encoder.measurement)
    moments = {site: SiteMoments(*(means[_key(site, part)] for part in _PARTS)) for site in encoder.sites}
    samples = {site: recording.inputs(site) for site in encoder.sites}
    return Everybody(moments, means["squares"], samples, sample, background)
