"""From a retrained UNet back to what was changed in it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from piu_lora.adapter.folder import read_tensors
from piu_lora.adapter.lora_keys import without_wrappers
from piu_lora.adapter.pickles import load_pickle
from piu_lora.documents import from_json
from piu_lora.errors import BadInput, Incompatible
from piu_lora.foreign import is_plain, read_text
from piu_lora.model.factors import Factors
from piu_lora.model.layout import DIFFUSION

__all__ = ["Extracted", "extract_change", "read_checkpoint"]

_log = logging.getLogger("piu_lora")

# Differences outside linear layers up to this share of all are rounding.
_NEGLIGIBLE = 1e-3
_PREFIXES = ("model.diffusion_model.", "unet.")


@dataclass(frozen=True)
class Extracted:
    """The difference of two UNets.

    Attributes:
        change: exact factors of every linear layer that differs, of full rank.
        left_out: relative Frobenius size of the differences in other weights, by name.
        share_left_out: their part of the whole difference (Frobenius).
    """

    change: dict[str, Factors]
    left_out: dict[str, float]
    share_left_out: float


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a UNet, from a diffusers folder, a .safetensors file, or a pickle of plain tensors,
    which is never run.

    Raises:
        BadInput: none of these.
    """
    for folder in (path, path / "unet") if path.is_dir() else ():
        form = next((folder / name for name in DIFFUSION if (folder / name).is_file()), None)
        if form is not None:
            shards = _shards(form) if ".index." in form.name else [form]
            return {key: value for shard in shards for key, value in read_checkpoint(shard).items()}
    inside = sorted(path.glob("**/diffusion_pytorch_model*")) if path.is_dir() else []
    if inside:
        raise BadInput(f"{str(path)!r} holds a UNet further down; pass {str(inside[0].parent)!r}")
    if not path.is_file():
        raise BadInput(
            f"{str(path)!r} holds no UNet; pass a diffusers folder, "
            "a .safetensors file or a pickled state dict"
        )
    return _stripped(read_tensors(path)[0] if path.suffix == ".safetensors" else _unpickled(path), path)


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(from_json(read_text(index))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{str(index)!r} is no index of shards: {str(error)[:100]}; copy it again") from error
    if foreign := [name for name in names if not isinstance(name, str) or not is_plain(name)]:
        raise BadInput(f"{str(index)!r} names {str(foreign[0])[:80]!r}, which is no file beside it")
    return [index.parent / name for name in names]


def _unpickled(path: Path) -> Mapping[str, object]:
    state = load_pickle(
        path,
        "is a pickle that holds more than tensors, or is damaged; it was not run. Convert it to safetensors",
        mmap=True,
    )
    for name in ("state_dict", "unet", "model"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict):
        raise BadInput(
            f"{str(path)!r} holds a {type(state).__name__}, not a state dict; save the UNet's state_dict()"
        )
    return state


def _stripped(state: Mapping[str, object], path: Path) -> dict[str, torch.Tensor]:
    plain = {}
    for key, value in state.items():
        key = without_wrappers(str(key))
        for prefix in _PREFIXES:
            key = without_wrappers(key.removeprefix(prefix))
        if isinstance(value, torch.Tensor):
            plain[key] = value
    if not plain:
        raise BadInput(f"{str(path)!r} holds no tensors; pass the retrained UNet")
    return plain


@torch.no_grad()
def extract_change(
    unet: UNet2DConditionModel, retrained: Mapping[str, torch.Tensor], *, ignore_rest: bool = False
) -> Extracted:
    """``dW = W' - W`` of every linear layer, in float32, as factors of full rank.

    Args:
        unet: the base, in float32.
        retrained: state dict of the same architecture; weights that it leaves out are unchanged, as in files
            of ESD and UCE, which hold what was edited only.
        ignore_rest: leave out differences in other weights, however large.

    Raises:
        Incompatible: other names or shapes than the base's.
        BadInput: nothing differs, or a notable part of the difference is in weights that are no linear
            layers.
    """
    base = dict(unet.named_parameters())
    retrained = _named(base, retrained)
    linear = {
        f"{name}.weight": name for name, module in unet.named_modules() if isinstance(module, torch.nn.Linear)
    }
    change, left_out, inside, outside = {}, {}, 0.0, 0.0
    for name, stored in retrained.items():
        weight = base[name]
        # What was only stored in half precision has not changed.
        if torch.equal(stored, weight.to(stored.dtype)):
            continue
        difference = stored.float() - weight.float()
        if not torch.isfinite(difference).all():
            raise BadInput(f"{name!r} of the retrained UNet holds NaN or infinity; train it again")
        energy = float(difference.double().square().sum())
        if energy == 0:
            continue
        if name in linear:
            change[f"unet.{linear[name]}"] = _full_rank(difference)
            inside += energy
        else:
            left_out[name] = round((energy / max(float(weight.double().square().sum()), 1e-30)) ** 0.5, 6)
            outside += energy
    if not change:
        raise BadInput(
            "no linear layer of the retrained UNet differs from the base; "
            "pass the checkpoint that was trained from this base"
        )
    share = (outside / (inside + outside)) ** 0.5
    if share > _NEGLIGIBLE and not ignore_rest:
        raise BadInput(
            f"{len(left_out)} weights differ that are no linear layers ({share:.1%} of the whole "
            "difference, for example "
            f"{max(left_out, key=lambda name: left_out[name])!r}), and a LoRA cannot hold them; "
            "pass ignore_rest=True to leave them out"
        )
    return Extracted(change, left_out, share)


def _named(
    base: Mapping[str, torch.Tensor], retrained: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The retrained weights by the base's names; some files name the module instead of its weight."""
    named = {
        name if name in base or f"{name}.weight" not in base else f"{name}.weight": value
        for name, value in retrained.items()
    }
    absent = base.keys() - named.keys()
    # A layer of which a part is left out is damage, unless the file holds what was edited only.
    torn = {name for name in absent if any(_beside(name, end) in named for end in (".weight", ".bias"))}
    odd = (
        sorted(named.keys() - base.keys())
        or sorted(name for name, value in named.items() if base[name].shape != value.shape)
        or sorted(torn if 2 * len(named) > len(base) else ())
    )
    if odd:
        raise Incompatible(
            f"the checkpoint is no UNet of this base: {len(odd)} weights do not fit, the first is {odd[0]!r}"
        )
    if absent:
        _log.warning(
            "%d of %d weights are not in the checkpoint and count as unchanged", len(absent), len(base)
        )
    return named


def _beside(name: str, end: str) -> str:
    """The other parameter of the same layer."""
    return name.rpartition(".")[0] + end


def _full_rank(difference: torch.Tensor) -> Factors:
    """``dW`` as a product in which the smaller side is the identity; compression does the rest."""
    out, into = difference.shape
    if out <= into:
        return Factors(difference, torch.eye(out))
    return Factors(torch.eye(into), difference)
