"""Marks in the stream: whom a readout of them fails, and what they do to attention."""

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.identity import IdentityBank
from piu_lora.unlearn import GateConfig
from piu_lora.unlearn.gate.encoder import GateEncoder
from piu_lora.unlearn.gate.marks import mark_directions, separating


def samples(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_who_is_failed_where_a_mark_cannot_be_told() -> None:
    """Two clouds that overlap: with protection nearly nobody else is taken for the person."""
    others, marked = samples(0, 500, 4), samples(1, 100, 4) + torch.tensor([2.0, 0, 0, 0])
    others, marked = (torch.cat([rows, torch.ones(len(rows), 1)], dim=1) for rows in (others, marked))

    def taken(protection: float) -> float:
        return float(((others @ separating(marked, others, 1e-6, protection)) > 0).double().mean())

    assert taken(1.0) > 0.05
    assert taken(30.0) < 0.01


def test_a_mark_draws_attention(pipe: StableDiffusionPipeline, bank: IdentityBank) -> None:
    """Put into the identity token's stream, it is looked at more by later tokens than any random direction
    of the same size, in the mean over heads.
    """
    encoder = GateEncoder(pipe, GateConfig(prompts=32, retained=32, checked=32))
    layer = encoder.writes
    rows = torch.nn.functional.normalize(bank.embeddings[:64])
    shut = encoder.streams(layer, rows, torch.zeros(len(rows), dtype=torch.long)).inputs.flatten(0, 1)
    marks = mark_directions(encoder, shut)
    torch.testing.assert_close(marks.norm(dim=1), torch.ones(len(marks)))
    random = torch.nn.functional.normalize(samples(3, 200, marks.shape[1]).float(), dim=1)

    def attention(directions: torch.Tensor) -> torch.Tensor:
        norm = layer.module.get_submodule("layer_norm1")
        keys = layer.module.get_submodule("self_attn.k_proj")(norm(100 * directions))
        return keys.detach() @ encoder.late_query()

    assert float(attention(marks).mean()) > float(attention(random).quantile(0.9))
