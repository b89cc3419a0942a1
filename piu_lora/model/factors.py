"""The algebra of low-rank changes: every layer's ``dW = up @ down``, summed, compared and recompressed
without forming ``dW``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from piu_lora.errors import BadInput

__all__ = [
    "COMPONENTS",
    "Change",
    "Factors",
    "change_of",
    "component",
    "compressed",
    "concatenated",
    "distance",
    "padded",
    "state_of",
]

COMPONENTS = ("unet", "text_encoder")
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Factors:
    """The change of one linear layer, ``dW = up @ down`` (LoRA, arXiv 2106.09685, with the scale baked in).

    Attributes:
        down: (r, in), LoRA's A.
        up: (out, r), LoRA's B.
        pointwise: the layer is a 1x1 convolution, whose factors have two more axes in files.
    """

    down: torch.Tensor
    up: torch.Tensor
    pointwise: bool = False

    @property
    def rank(self) -> int:
        """Columns of ``up``."""
        return len(self.down)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the layer."""
        return self.up.shape[0], self.down.shape[1]

    def dense(self) -> torch.Tensor:
        """``dW``, (out, in), in float32."""
        return self.up.float() @ self.down.float()

    def norm(self) -> float:
        """Frobenius norm of ``dW``, from two (r, r) Gram matrices, or from ``dW`` where that is smaller."""
        up, down = self.up.double(), self.down.double()
        if self.rank > max(self.shape):  # a rank that no layer needs, perhaps of thousands
            return float((up @ down).norm())
        return float(((up.T @ up) * (down @ down.T)).sum().clamp_min(0).sqrt())

    def to(self, dtype: torch.dtype) -> "Factors":
        """A copy in another precision."""
        return replace(self, down=self.down.to(dtype).contiguous(), up=self.up.to(dtype).contiguous())


# By module, with its component in front: "unet.mid_block...to_q", "text_encoder.encoder.layers.0.mlp.fc2".
Change = Mapping[str, Factors]


def component(module: str) -> str:
    """``unet`` or ``text_encoder``."""
    return module.split(".", 1)[0]


def change_of(state: Mapping[str, torch.Tensor], where: str, prefix: str = "") -> dict[str, Factors]:
    """Pair up a state dict with keys ``<module>.lora_A.weight`` (r, in) and ``<module>.lora_B.weight`` (out,
    r).

    Args:
        where: names the source in messages.
        prefix: put before every module.

    Raises:
        BadInput: foreign keys, a factor without its partner, shapes that do not fit, NaN or infinity.
    """
    foreign = [
        key for key in state if not key.endswith((_DOWN, _UP)) or component(prefix + key) not in COMPONENTS
    ]
    if foreign or not state:
        raise BadInput(
            f"{where} holds foreign keys {foreign[:3]}; expected unet.<module>{_DOWN} and {_UP}, or "
            "text_encoder.<module>..."
        )
    change = {}
    for module in {key.removesuffix(_DOWN).removesuffix(_UP) for key in state}:
        change[prefix + module] = _factors(
            state.get(module + _DOWN), state.get(module + _UP), f"{where}: {module!r}"
        )
    return dict(sorted(change.items()))


def _factors(down: torch.Tensor | None, up: torch.Tensor | None, layer: str) -> Factors:
    if down is None or up is None:
        raise BadInput(f"{layer} lacks one of its two factors; make or download the adapter again")
    pointwise = down.ndim == up.ndim == 4
    if pointwise and (down.shape[2:].numel() != 1 or up.shape[2:].numel() != 1):
        kernel = " x ".join(map(str, down.shape[2:]))
        raise BadInput(
            f"{layer} is a convolution of {kernel}; only linear layers and convolutions of 1 x 1 are read"
        )
    if pointwise:
        down, up = down.flatten(1), up.flatten(1)
    if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1]:
        raise BadInput(
            f"{layer} has factors that do not fit ({tuple(down.shape)}, {tuple(up.shape)}); "
            "make or download the adapter again"
        )
    if not down.numel() or not up.numel():
        raise BadInput(f"{layer} is of rank 0 or empty; leave the layer out and make the adapter again")
    for tensor in (down, up):
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise BadInput(
                f"{layer} holds NaN, infinity or no real numbers; make or download the adapter again"
            )
    return Factors(down, up, pointwise)


def state_of(change: Change) -> dict[str, torch.Tensor]:
    """A change as a state dict: ``MODULE.lora_A.weight`` (rank, in), ``MODULE.lora_B.weight`` (out, rank)."""
    return {
        f"{module}{end}": value[..., None, None] if f.pointwise else value
        for module, f in change.items()
        for end, value in ((_DOWN, f.down), (_UP, f.up))
    }


def concatenated(changes: Sequence[Change], weights: Sequence[float]) -> dict[str, Factors]:
    """The exact weighted sum ``sum_k w_k dW_k``: ranks add up, nothing is computed but the products with the
    weights.

    A member of weight 0 adds nothing. Layers that only some members touch are kept.
    """
    parts: dict[str, list[Factors]] = {}
    for change, weight in zip(changes, weights, strict=True):
        for module, factors in change.items() if weight != 0 else ():
            if module in parts and parts[module][0].shape != factors.shape:
                raise BadInput(
                    f"the adapters do not belong to one base: {module!r} is {parts[module][0].shape} "
                    f"in one, {factors.shape} in another"
                )
            parts.setdefault(module, []).append(
                factors if weight == 1 else replace(factors, up=factors.up * weight)
            )
    return {
        module: replace(
            members[0],
            down=torch.cat([f.down for f in members]),
            up=torch.cat([f.up for f in members], dim=1),
        )
        for module, members in sorted(parts.items())
    }


def compressed(factors: Factors, rank: int | None = None, tolerance: float = 0.0) -> Factors:
    """The best approximation of lower rank (Eckart-Young), in float64 by QR of both factors and an SVD of the
    (r, r) core.

    Args:
        rank: the highest allowed; all by default.
        tolerance: drop what is below this share of the layer's largest singular value. What is below 1e-12 of
            it is noise, and is dropped always.

    Returns:
        Factors in float32 that share the singular values evenly.
    """
    (left, r_left), (right, r_right) = (
        torch.linalg.qr(factors.up.double()),
        torch.linalg.qr(factors.down.double().T),
    )
    u, singular, v = torch.linalg.svd(r_left @ r_right.T)
    keep = max(int((singular > max(tolerance, 1e-12) * singular[0]).sum()), 1)
    keep = min(keep, rank or keep)
    root = singular[:keep].sqrt()
    return replace(
        factors, down=(root[:, None] * v[:keep] @ right.T).float(), up=(left @ u[:, :keep] * root).float()
    )


def distance(first: Factors, second: Factors) -> tuple[float, float]:
    """Spectral norms of ``first - second`` and ``first``, (absolute error, scale), without forming either."""
    difference = Factors(
        torch.cat([first.down.double(), second.down.double()]),
        torch.cat([first.up.double(), -second.up.double()], dim=1),
    )
    return _spectral(difference), _spectral(first)


def _spectral(factors: Factors) -> float:
    r_left, r_right = torch.linalg.qr(factors.up.double()).R, torch.linalg.qr(factors.down.double().T).R
    return float(torch.linalg.matrix_norm(r_left @ r_right.T, ord=2))


def padded(factors: Factors, rank: int) -> Factors:
    """The same change with zero rows and columns up to ``rank``, for formats that know one rank only."""
    extra = rank - factors.rank
    pad = torch.nn.functional.pad
    return replace(factors, down=pad(factors.down, (0, 0, 0, extra)), up=pad(factors.up, (0, extra)))
