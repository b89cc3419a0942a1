"""Adapters in a pipeline: thin layers over diffusers' own calls that catch what those leave silent."""

import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter.checks import check_weights, component_model, require_base
from piu_lora.adapter.fetch import adapter_folder
from piu_lora.adapter.folder import Adapter, diffusers_state, read_adapter
from piu_lora.adapter.layers import activate, adapter_names, base_as_before, restore, states
from piu_lora.adapter.pinning import Pinning, pin, pinned, pinning_mode, unpin
from piu_lora.errors import BadInput, Incompatible
from piu_lora.model import adapter_layers, read_weights, write_weights
from piu_lora.model import adapters_disabled as part_disabled
from piu_lora.model.attention import has_fused_projections
from piu_lora.model.factors import COMPONENTS, Change, component, padded
from piu_lora.model.offload import is_offloaded, whole

__all__ = [
    "adapters_disabled",
    "hotswap",
    "load_adapter",
    "load_adapters",
    "mounted",
    "open_adapter",
    "prepare_hotswap",
    "set_weights",
    "unload",
]

_log = logging.getLogger("piu_lora")
_SWAPPABLE: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()  # UNets that prepare_hotswap has seen


def open_adapter(adapter: Adapter | Path | str) -> Adapter:
    """Read and check an adapter from its folder, or from the Hub by ``user/name[@revision]``."""
    return adapter if isinstance(adapter, Adapter) else read_adapter(adapter_folder(adapter))


def load_adapter(
    pipe: StableDiffusionPipeline,
    adapter: Adapter | Path | str,
    *,
    name: str | None = None,
    weight: float = 1.0,
    allow_negative: bool = False,
    pinned: Pinning = True,
) -> str:
    """Load an adapter into a pipeline with diffusers' own loader, after checking that the two belong
    together, and keep it active whatever is loaded or switched off later.

    Args:
        pipe: a plain pipeline; adapters already loaded stay active beside the new one, with their weights.
        adapter: a folder, a Hub id ``user/name[@revision]``, or an adapter already read.
        name: name in the pipeline; the adapter's opaque id by default.
        weight: what the change is multiplied by.
        allow_negative: a weight below 0 strengthens what the adapter removes, so it is refused otherwise.
        pinned: the adapter stays active through ``load_lora_weights``, ``set_adapters``, ``disable_lora``,
            ``unload_lora_weights`` and ``delete_adapters`` of this pipeline, until ``unpin``; ``refuse``
            makes a call that would have switched it off raise ``BadInput``; False leaves it to the host.

    Returns:
        The name.

    Raises:
        BadInput: the folder is damaged, the name is taken, the weight is negative or not a number.
        Incompatible: it was made for another base.
    """
    return load_adapters(
        pipe,
        [adapter],
        [weight],
        names=None if name is None else [name],
        allow_negative=allow_negative,
        pinned=pinned,
    )[0]


def load_adapters(
    pipe: StableDiffusionPipeline,
    adapters: Sequence[Adapter | Path | str],
    weights: Sequence[float] | None = None,
    *,
    names: Sequence[str] | None = None,
    allow_negative: bool = False,
    pinned: Pinning = True,
) -> list[str]:
    """Load several adapters, all active together with those loaded before; either all of them or none.

    Args:
        weights: one for each adapter; 1 by default.
        names, pinned: as for ``load_adapter``.

    Raises:
        BadInput, Incompatible: as for ``load_adapter``; then the pipeline is as before.
    """
    opened = [open_adapter(adapter) for adapter in adapters]
    weights = [1.0] * len(opened) if weights is None else list(weights)
    names = [adapter.id for adapter in opened] if names is None else list(names)
    if not len(weights) == len(names) == len(opened):
        raise BadInput(
            f"{len(opened)} adapters, but {len(weights)} weights and {len(names)} names; pass one for each"
        )
    check_weights(weights, allow_negative=allow_negative)
    before = states(pipe)
    _check_names(pipe, names)
    _check_projections(pipe)
    for adapter in opened:
        require_base(pipe, adapter)
    loaded: list[str] = []
    try:
        for adapter, name in zip(opened, names, strict=True):
            loaded.append(name)
            _load(pipe, adapter.change, name)
        restore(pipe, before, dict(zip(names, weights, strict=True)))
    except BaseException:
        unload(pipe, loaded)
        restore(pipe, before, {})
        raise
    if pinned:
        pin(pipe, loaded, pinned)
    return loaded


def _check_projections(pipe: StableDiffusionPipeline) -> None:
    if has_fused_projections(component_model(pipe, "unet")):
        raise Incompatible(
            "the projections of this UNet's attention are fused, and would pass over the adapter; call "
            "pipe.unfuse_qkv_projections() first"
        )


def _check_names(pipe: StableDiffusionPipeline, names: Sequence[str]) -> None:
    loaded = _loaded(pipe)
    for index, name in enumerate(names):
        if name in loaded or name in names[:index]:
            raise BadInput(f"adapter name {name!r} is taken; load an adapter once, or pass another name")
        if not name or "." in name:
            raise BadInput(
                f"adapter name {name!r} is not allowed: it is empty or holds a dot; pass another name"
            )


def _loaded(pipe: StableDiffusionPipeline) -> set[str]:
    return set().union(*(adapter_names(pipe, part) for part in COMPONENTS))


def _load(pipe: StableDiffusionPipeline, change: Change, name: str) -> None:
    # Tensors, not the file: they were checked, and the file could change. Alpha equals rank, so nothing else
    # is needed.
    state = diffusers_state(_even(change) if component_model(pipe, "unet") in _SWAPPABLE else change)
    parts = {component(module) for module in change}
    # diffusers would offload again by its own defaults, onto an accelerator.
    owner = None if any(map(is_offloaded, pipe.components.values())) else pipe
    # By component: pipe.load_lora_weights complains of every component that an adapter leaves alone.
    for part in sorted(parts):
        model = component_model(pipe, part)
        with base_as_before(pipe), whole(model):
            if part == "unet":
                model.load_lora_adapter(state, prefix="unet", adapter_name=name, _pipeline=owner)
            else:
                pipe.load_lora_into_text_encoder(state, None, model, adapter_name=name, _pipeline=owner)
            _settle(model, change, part, name)
    for part in parts:
        if name not in adapter_names(pipe, part):
            raise Incompatible(
                f"adapter {name!r} changed nothing in the {part} of this pipeline; "
                "load the base that it was made for"
            )


def _settle(model: torch.nn.Module, change: Change, part: str, name: str) -> None:
    """PEFT leaves factors trainable, and casts them to the type of the base's weights: eight bits are too few
    for them.
    """
    for path, layer in adapter_layers(model).items():
        factors = change.get(f"{part}.{path}")
        if factors is None or name not in layer.lora_A:
            continue
        factors = padded(factors, len(layer.lora_A[name].weight))
        for module, value in ((layer.lora_A[name], factors.down), (layer.lora_B[name], factors.up)):
            module.requires_grad_(False)
            if module.weight.element_size() == 1:
                module.weight.data = value.float().to(module.weight.device)


def set_weights(
    pipe: StableDiffusionPipeline, weights: Mapping[str, float], *, allow_negative: bool = False
) -> None:
    """Make the adapters named, and no others, active with these weights.

    Pinned adapters that are named stay pinned, at the new weight; the others are let go of.

    Raises:
        BadInput: an adapter that is not loaded; weights as for ``load_adapters``.
    """
    check_weights(list(weights.values()), allow_negative=allow_negative)
    if unknown := sorted(weights.keys() - _loaded(pipe)):
        raise BadInput(f"adapter {unknown[0]!r} is not loaded; loaded: {sorted(_loaded(pipe)) or 'none'}")
    stay = [name for name in pinned(pipe) if name in weights]
    mode = pinning_mode(pipe)
    unpin(pipe)
    activate(pipe, weights)
    pin(pipe, stay, mode)


def _even(change: Change) -> Change:
    """The same change with one rank everywhere, as PEFT's hotswap wants it."""
    rank = max(factors.rank for factors in change.values())
    return {module: padded(factors, rank) for module, factors in change.items()}


@contextmanager
def mounted(pipe: StableDiffusionPipeline, change: Change) -> Iterator[None]:
    """While open, a change that is in no folder yet is active, alone; the pipeline carries no adapter before
    and after.
    """
    name = "mounted"
    try:
        _load(pipe, change, name)
        activate(pipe, {name: 1.0})
        yield
    finally:
        unload(pipe, [name])


def unload(pipe: StableDiffusionPipeline, names: Sequence[str]) -> None:
    """Take adapters out again; after the last one the pipeline is as it was, without wrappers."""
    present = [name for name in names if name in _loaded(pipe)]
    unpin(pipe, present)
    if not present:
        return
    before = states(pipe)
    pipe.delete_adapters(present)
    restore(pipe, before, {})
    if not _loaded(pipe):
        pipe.unload_lora_weights()


@contextmanager
def adapters_disabled(pipe: StableDiffusionPipeline) -> Iterator[None]:
    """While open, the pipeline is its bare base, bit for bit, pinned adapters or not; afterwards the same
    adapters are active with the same weights.
    """
    with part_disabled(component_model(pipe, "unet")), part_disabled(component_model(pipe, "text_encoder")):
        yield


def prepare_hotswap(pipe: StableDiffusionPipeline, rank: int) -> None:
    """Make room for adapters up to ``rank``, so that ``hotswap`` needs no recompilation; call it before the
    first adapter is loaded.

    Raises:
        BadInput: adapters are loaded already.
    """
    if _loaded(pipe):
        raise BadInput(
            f"adapters are loaded already ({sorted(_loaded(pipe))}); call prepare_hotswap on the bare base"
        )
    pipe.unet.enable_lora_hotswap(target_rank=rank)
    _SWAPPABLE.add(component_model(pipe, "unet"))


def hotswap(pipe: StableDiffusionPipeline, adapter: Adapter | Path | str, name: str) -> None:
    """Replace the weights of a loaded adapter in place, also under ``torch.compile``; its name and weight
    stay.

    Args:
        name: of the loaded adapter; it was loaded after ``prepare_hotswap``.

    Raises:
        BadInput: nothing of that name is loaded, or the new adapter changes layers that the old one does not.
        Incompatible: made for another base, or it changes the text encoder, which diffusers cannot swap.
    """
    opened = open_adapter(adapter)
    _require_swappable(pipe, opened, name)
    before, unet = states(pipe), component_model(pipe, "unet")
    weights = {key: value.clone() for key, value in read_weights(unet, name).items()}
    state = diffusers_state(_even(opened.change))
    try:
        unet.load_lora_adapter(state, prefix="unet", adapter_name=name, hotswap=True, _pipeline=pipe)
    except BaseException:
        write_weights(unet, name, weights)
        raise
    finally:
        restore(pipe, before, {})


def _require_swappable(pipe: StableDiffusionPipeline, opened: Adapter, name: str) -> None:
    """Raise unless the adapter can take the place of the loaded one in place."""
    if name not in adapter_names(pipe, "unet"):
        raise BadInput(
            f"no adapter {name!r} is loaded in the UNet; loaded: {sorted(_loaded(pipe)) or 'none'}; "
            "use load_adapter first"
        )
    if any(component(module) != "unet" for module in opened.change):
        raise Incompatible(
            f"adapter {opened.id} changes the text encoder, which cannot be swapped in place; "
            "unload the old one and load it"
        )
    require_base(pipe, opened)
    layers = {
        f"unet.{path}"
        for path, module in component_model(pipe, "unet").named_modules()
        if name in getattr(module, "lora_A", {})
    }
    if extra := sorted(opened.change.keys() - layers):
        raise BadInput(
            f"adapter {opened.id} changes layers that {name!r} does not ({extra[0]}); "
            f"unload {name!r} and load it instead"
        )
    rank = max(factors.rank for factors in opened.change.values())
    room = max(
        len(module.lora_A[name].weight)
        for module in component_model(pipe, "unet").modules()
        if name in getattr(module, "lora_A", {})
    )
    if component_model(pipe, "unet") not in _SWAPPABLE or rank > room:
        raise BadInput(
            f"adapter {name!r} has room for rank {room}, {opened.id} has {rank}; "
            "call prepare_hotswap(pipe, rank) before the first load"
        )
