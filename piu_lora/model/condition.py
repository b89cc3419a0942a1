"""From an identity embedding to the condition that the UNet attends to, as the family of the base has it.

The prompt of the family is encoded whole, with the zero-padded embedding in place of the token embedding of
its identity token (for Arc2Face: arXiv 2403.11641, section 3.2).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from piu_lora.errors import BadInput
from piu_lora.model.family import Prompt, stated_family
from piu_lora.model.offload import stored_value

__all__ = [
    "TokenSample",
    "encode_embeddings",
    "encode_empty",
    "encode_tokens",
    "identity_position",
    "prompt_of",
]


def prompt_of(text_encoder: CLIPTextModel) -> Prompt:
    """The prompt of the family that the encoder's config states; Arc2Face's where it states none."""
    family = stated_family(text_encoder)
    return family.prompt if family else Prompt()


def encode_embeddings(
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    embeddings: torch.Tensor,
    prompt: Prompt | None = None,
) -> torch.Tensor:
    """Encode identities as conditions, one a row.

    Args:
        embeddings: (n, d) unit-norm ArcFace vectors, d at most the hidden size of the encoder. Gradients
            reach them.
        prompt: that of the base's family by default.

    Returns:
        (n, length, hidden) last hidden states; (n, 77, 768) on Arc2Face.
    """
    prompt = prompt or prompt_of(text_encoder)
    tokens = _tokens(tokenizer, prompt.text).expand(len(embeddings), -1)
    return encode_tokens(text_encoder, embeddings, tokens, _identity_token(tokenizer, prompt))


def encode_tokens(
    text_encoder: CLIPTextModel, embeddings: torch.Tensor, tokens: torch.Tensor, identity: int
) -> torch.Tensor:
    """Encode each identity under a text of its own.

    Args:
        embeddings: (n, d), as for ``encode_embeddings``.
        tokens: (n, length), the texts.
        identity: the token whose embedding is replaced.

    Returns:
        (n, length, hidden) last hidden states.
    """
    weight = _token_table(text_encoder)
    hidden = weight.shape[1]
    if embeddings.ndim != 2 or embeddings.shape[1] > hidden:
        raise BadInput(
            f"embeddings of shape {tuple(embeddings.shape)} do not fit an encoder of width {hidden}; "
            f"expected (n, d) with d <= {hidden}"
        )
    padded = torch.nn.functional.pad(embeddings.to(weight), (0, hidden - embeddings.shape[1]))
    tokens = tokens.to(weight.device)
    with _replaced(text_encoder, tokens, padded, identity):
        output: torch.Tensor = text_encoder(input_ids=tokens)[0]
    return output


def encode_empty(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> torch.Tensor:
    """The condition of the empty prompt, (1, length, hidden): the negative side of the guidance."""
    output: torch.Tensor = text_encoder(
        input_ids=_tokens(tokenizer, "").to(_token_table(text_encoder).device)
    )[0]
    return output


def _token_table(text_encoder: CLIPTextModel) -> torch.Tensor:
    module = text_encoder.get_input_embeddings()
    return stored_value(module, "weight", module.weight)  # type: ignore[arg-type]


def identity_position(tokenizer: CLIPTokenizer, prompt: Prompt | None = None) -> int:
    """Index of the identity token in the prompt (Arc2Face's by default); it and every later token carry the
    identity, since CLIP is causal.

    Raises:
        BadInput: the tokenizer makes several tokens of it.
    """
    prompt = prompt or Prompt()
    tokens = _tokens(tokenizer, prompt.text)[0]
    positions = (tokens == _identity_token(tokenizer, prompt)).nonzero()
    if len(positions) != 1:
        raise BadInput(
            f"the tokenizer splits {prompt.text!r} so that {prompt.token!r} is not one token; "
            "use the tokenizer of the base"
        )
    return int(positions[0])


@dataclass(frozen=True)
class TokenSample:
    """Token positions that stand for all: the prompt's own each for itself, the padding behind them, which
    hardly differs, by a few.

    Attributes:
        places: ascending.
        shares: of a mean over all positions, what each stands for; they sum to 1.
    """

    places: tuple[int, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(
        cls,
        tokenizer: CLIPTokenizer,
        count: int = 0,
        *,
        from_identity: bool = False,
        prompt: Prompt | None = None,
    ) -> "TokenSample":
        """At most ``count`` positions, but at least the prompt's and one of the padding; 0 takes all.

        Args:
            from_identity: only those that carry the identity.
            prompt: of the base's family; Arc2Face's by default.
        """
        prompt = prompt or Prompt()
        first = identity_position(tokenizer, prompt) if from_identity else 0
        every = range(first, tokenizer.model_max_length)
        words = every[: len(tokenizer.encode(prompt.text)) - first]
        length = max(count, len(words) + 1)
        if not count or length >= len(every):
            return cls(tuple(every), (1 / len(every),) * len(every))
        padding = every[len(words) :]
        spread = torch.linspace(padding[0], padding[-1], length - len(words)).round().long().tolist()
        weight = len(padding) / len(spread) / len(every)
        return cls((*words, *spread), (1 / len(every),) * len(words) + (weight,) * len(spread))

    def of_tokens(self, values: torch.Tensor) -> torch.Tensor:
        """(n, length, width) at the places, (n, len(places), width)."""
        return values.index_select(1, torch.tensor(self.places, device=values.device))

    def weighed(self, values: torch.Tensor) -> torch.Tensor:
        """(n, len(places), width) scaled so that the mean of ``x x^T`` over the places stands for that over
        all positions.
        """
        return (
            values
            * torch.tensor(self.shares, dtype=values.dtype, device=values.device)
            .mul(len(self.shares))
            .sqrt()[:, None]
        )


def _tokens(tokenizer: CLIPTokenizer, text: str) -> torch.Tensor:
    encoded = tokenizer(
        text,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    tokens: torch.Tensor = encoded.input_ids
    return tokens


def _identity_token(tokenizer: CLIPTokenizer, prompt: Prompt) -> int:
    return int(tokenizer.encode(prompt.token, add_special_tokens=False)[0])


@contextmanager
def _replaced(
    text_encoder: CLIPTextModel, tokens: torch.Tensor, vectors: torch.Tensor, token: int
) -> Iterator[None]:
    """While open, the encoder's token embeddings carry ``vectors`` (n, hidden) wherever ``tokens`` is
    ``token``.
    """

    def hook(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return torch.where((tokens == token)[..., None], vectors[:, None, :], output)

    handle = text_encoder.get_input_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
