"""Prompts under which a gate must hold: the family's own, and others that hold its identity token."""

from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import CLIPTokenizer

from piu_lora.model import Prompt, identity_position

__all__ = ["Templates"]

_SHORT = 7  # words of half of the templates, at most; of the others as many as fit
_SEED = 0  # the templates are the same for every request: what is cached for a bank rests on them


@dataclass(frozen=True)
class Templates:
    """Token rows, the family's own prompt first.

    Half of the others are made of the prompt's own words, half of any words of the vocabulary; length and the
    place of the identity token are drawn.

    Attributes:
        count: of different templates; 1: the family's own prompt only.
        share: of the conditions, how many are under another template than the family's own.
    """

    tokenizer: CLIPTokenizer
    prompt: Prompt
    count: int
    share: float

    @cached_property
    def rows(self) -> torch.Tensor:
        """(count, length) tokens."""
        return torch.cat([self._official[None], self._drawn()])

    @cached_property
    def positions(self) -> torch.Tensor:
        """(count,) of the identity token."""
        return (self.rows == self.identity).int().argmax(dim=1)

    @cached_property
    def identity(self) -> int:
        """The identity token."""
        return int(self._official[identity_position(self.tokenizer, self.prompt)])

    def numbers(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(n,) templates of embeddings (n, d), from their digits: an embedding always meets the same one."""
        values = embeddings.double().cpu()
        first, second = ((part.sum(dim=1) * 2**12).floor().long() for part in values[:, :16].split(8, dim=1))
        official = first % 1000 >= round(1000 * self.share)
        others = 1 + second % max(self.count - 1, 1)
        return torch.where(official | (self.count < 2), torch.zeros_like(others), others)

    def drawn(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """(count,) templates at random."""
        others = torch.randint(1, max(self.count, 2), (count,), generator=generator)
        official = torch.rand(count, generator=generator) >= self.share
        return torch.where(official | (self.count < 2), torch.zeros_like(others), others)

    @cached_property
    def _official(self) -> torch.Tensor:
        return self._tokens(self.prompt.text)

    def _tokens(self, text: str) -> torch.Tensor:
        length = self.tokenizer.model_max_length
        encoded = self.tokenizer(text, padding="max_length", max_length=length, return_tensors="pt")
        row: torch.Tensor = encoded.input_ids[0]
        return row

    def _drawn(self) -> torch.Tensor:
        """(count - 1, length): the empty prompt with words put between its two ends."""
        generator = torch.Generator().manual_seed(_SEED)
        empty, room = self._tokens(""), self.tokenizer.model_max_length - 2
        known = torch.tensor(self.tokenizer.encode(self.prompt.text, add_special_tokens=False))
        known = known[known != self.identity]
        vocabulary = torch.arange(len(self.tokenizer) - 2)  # the two ends of a text come last
        any_words = vocabulary[vocabulary != self.identity]
        rows = []
        for number in range(self.count - 1):
            longest = min(_SHORT, room) if number % 4 < 2 else room
            length = int(torch.randint(longest, (), generator=generator))
            words = any_words if number % 2 or not len(known) else known
            chosen = words[torch.randint(len(words), (length,), generator=generator)]
            at = int(torch.randint(length + 1, (), generator=generator))
            text = torch.cat([chosen[:at], torch.tensor([self.identity]), chosen[at:]])
            rows.append(torch.cat([empty[:1], text, empty[1:]])[: len(empty)])
        return torch.stack(rows) if rows else empty[None][:0]
