"""Marks that a decision leaves in the stream of the identity token, for attention to carry to every later
token.
"""

import torch
from torch.nn.functional import normalize

from piu_lora.unlearn.gate.encoder import GateEncoder

__all__ = ["mark_directions", "separating"]

_RIDGE = 1e-3
_ROUNDS = 30
_ATTRACTION = 1.0  # of a mark, beside what is carried: a part that draws later tokens' attention to it


def mark_directions(encoder: GateEncoder, shut: torch.Tensor, count: int = 32) -> torch.Tensor:
    """(count, hidden) unit directions that stand out most where the writing layer reads, once
    attention has carried them there: the leading eigenvectors of ``A^T C^-1 A``. To each is added the
    direction that the writing layer's queries look for, so that under every prompt enough attention falls on
    the mark; they are no longer orthogonal then.

    A sums ``W_o W_v`` of the attentions from the deciding layer to the writing one, between their layer
    norms' gains; C is the covariance of what the writing layer reads of everybody.

    Args:
        shut: (n, hidden) what it reads of everybody.
    """
    prefix = encoder.writes.name.rpartition(".")[0]
    hidden = shut.shape[1]
    total = torch.zeros(hidden, hidden, dtype=torch.float64)
    for number in range(encoder.decides.number + 1, encoder.writes.number + 1):
        layer = encoder.pipe.text_encoder.get_submodule(f"{prefix}.{number}")
        out, value = (_weight(layer, f"self_attn.{name}") for name in ("out_proj", "v_proj"))
        total += out @ (value * _weight(layer, "layer_norm1"))
    centred = torch.eye(hidden, dtype=torch.float64) - 1 / hidden
    carried = _weight(encoder.writes.module, "layer_norm2")[:, None] * (centred @ total @ centred)
    covariance = torch.cov(shut.double().T)
    covariance.diagonal().add_(_RIDGE * covariance.diagonal().mean())
    signal = carried.T @ torch.linalg.solve(covariance, carried)
    vectors = torch.linalg.eigh((signal + signal.T) / 2)[1].flip(1)[:, : min(count, hidden // 2)].T
    signs = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True)).sign()  # an eigenvector has no sign
    return normalize((vectors * signs).float() + _ATTRACTION * _attracting(encoder), dim=1)


def _attracting(encoder: GateEncoder) -> torch.Tensor:
    """(hidden,) unit direction in the stream that raises the attention of later tokens most, every head of
    the writing layer alike: the sum over heads of the unit vectors along ``W_k^T q``, q the mean query of
    tokens behind the identity, under all templates.
    """
    count = encoder.pipe.text_encoder.config.num_attention_heads
    keys = _weight(encoder.writes.module, "self_attn.k_proj") * _weight(encoder.writes.module, "layer_norm1")
    query = encoder.late_query().double().unflatten(0, (count, -1))
    heads = torch.einsum("hd,hdc->hc", query, keys.unflatten(0, (count, -1)))
    heads = normalize(heads - heads.mean(dim=1, keepdim=True), dim=1)
    return normalize(heads.sum(dim=0), dim=0).float()


def _weight(layer: torch.nn.Module, name: str) -> torch.Tensor:
    return layer.get_parameter(f"{name}.weight").detach().cpu().double()


def separating(
    marked: torch.Tensor, others: torch.Tensor, ridge: float, protection: float = 1.0
) -> torch.Tensor:
    """(hidden,) a readout of 1 or more of marked rows and -1 or less of all others, as far as there is one:
    least squares of the rows that fall short, until these no longer change.

    Args:
        marked, others: (n, hidden).
        ridge: as a share of the mean diagonal.
        protection: weight of all others together, against 1 of the marked: whom to fail where both cannot be.
    """
    rows = torch.cat([marked, others]).double()
    labels = torch.cat([torch.ones(len(marked)), -torch.ones(len(others))]).double()
    weights = torch.cat(
        [
            torch.full((len(group),), weight / len(group), dtype=torch.float64)
            for group, weight in ((marked, 1.0), (others, protection))
        ]
    )
    floor = ridge * float((weights[:, None] * rows.square()).sum() / rows.shape[1])
    short = torch.ones(len(rows), dtype=torch.bool)
    readout = torch.zeros(rows.shape[1], dtype=torch.float64)
    for _ in range(_ROUNDS):
        chosen = rows[short]
        weighted = chosen * weights[short][:, None]
        system = chosen.T @ weighted
        system.diagonal().add_(floor)
        readout = torch.linalg.solve(system, weighted.T @ labels[short])
        now = labels * (rows @ readout) < 1
        if torch.equal(now, short):
            break
        short = now
    return readout
