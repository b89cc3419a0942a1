"""Marks that a decision leaves in the stream of the identity token, for attention to carry to every later
token.
"""

import torch

from piu_lora.unlearn.gate.encoder import GateEncoder

__all__ = ["mark_directions", "separating"]

_RIDGE = 1e-3
_ROUNDS = 30


def mark_directions(encoder: GateEncoder, shut: torch.Tensor, count: int = 32) -> torch.Tensor:
    """(count, hidden) orthonormal directions that stand out most where the writing layer reads, once
    attention has carried them there: the leading eigenvectors of ``A^T C^-1 A``.

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
    directions: torch.Tensor = (vectors * signs).float()
    return directions


def _weight(layer: torch.nn.Module, name: str) -> torch.Tensor:
    return layer.get_parameter(f"{name}.weight").detach().cpu().double()


def separating(marked: torch.Tensor, others: torch.Tensor, ridge: float) -> torch.Tensor:
    """(hidden,) a readout of 1 or more of marked rows and -1 or less of all others, as far as there is one:
    least squares of the rows that fall short, until these no longer change.

    Args:
        marked, others: (n, hidden).
        ridge: as a share of the mean diagonal.
    """
    rows = torch.cat([marked, others]).double()
    wanted = torch.cat([torch.ones(len(marked)), -torch.ones(len(others))]).double()
    weights = torch.cat([torch.full((len(group),), 1 / len(group)) for group in (marked, others)]).double()
    floor = ridge * float((weights[:, None] * rows.square()).sum() / rows.shape[1])
    short = torch.ones(len(rows), dtype=torch.bool)
    readout = torch.zeros(rows.shape[1], dtype=torch.float64)
    for _ in range(_ROUNDS):
        some = rows[short]
        weighted = some * weights[short][:, None]
        system = some.T @ weighted
        system.diagonal().add_(floor)
        readout = torch.linalg.solve(system, weighted.T @ wanted[short])
        now = wanted * (rows @ readout) < 1
        if torch.equal(now, short):
            break
        short = now
    return readout
