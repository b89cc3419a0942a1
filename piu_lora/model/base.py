"""Bases: the pipelines that adapters belong to, and what piu_lora needs to know about one."""

import hashlib
import json
import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from piu_lora.errors import BadInput, EnvironmentProblem, Incompatible
from piu_lora.hub import HubFiles
from piu_lora.model.describe import configs_of, declare_family, describe, split_family, statement
from piu_lora.model.family import find_family, recognise_family
from piu_lora.model.files import LocalFiles
from piu_lora.model.layout import Layout, is_folder, load_options, locate, split_revision
from piu_lora.tensors import pointer_advice

__all__ = ["DTYPES", "Precision", "as_pipeline", "load_base", "resolve_device", "without_bars"]

_log = logging.getLogger("piu_lora")
Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_base(
    base: str | Path,
    *,
    family: str | None = None,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    parts_revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> StableDiffusionPipeline:
    """Load a base as a plain diffusers ``StableDiffusionPipeline`` with the DPM-Solver++ scheduler and no
    safety checker.

    Args:
        base: the name of a family (``mini``, embedded; ``arc2face``, from the Hub at pinned revisions), a Hub
            id, or a folder; the last two in the layout of diffusers or of a family's own repository.
            ``name@revision`` works as well, and ``family=name`` instead of the argument.
        family: the family of a base that neither states it nor is recognised.
        device: ``auto`` takes CUDA where there is one.
        dtype: of all weights.
        revision: of the base's repository, instead of the pinned one.
        parts_revision: of the repository that lends the family its other parts (Stable Diffusion 1.5 for
            Arc2Face: tokenizer, VAE and scheduler).
        cache_dir, local_files_only, token: as in diffusers.

    Raises:
        BadInput: no such base, a damaged folder, an unknown device.
        Incompatible: the parts do not fit each other, or no family recognises the base.
        EnvironmentProblem: the weights cannot be had; the message holds the command that fetches them.
    """
    prefix, text = split_family(base)
    family = family or prefix
    name, tag = (text, None) if is_folder(text) else split_revision(text)
    target = resolve_device(device)
    layout = locate(
        name,
        revision or tag,
        parts_revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
    )
    # All files first: a missing one is found before gigabytes are read.
    folders = {part: layout.fetch(part) for part in layout.places}
    with without_bars():
        pipe = _assemble(layout, folders, dtype)
    _state(pipe, layout, family)
    if describe(pipe).family.real_people:
        _say_once("this base has no safety checker: nothing filters what it generates")
    pipe.set_progress_bar_config(disable=True)
    loaded: StableDiffusionPipeline = pipe.to(target)
    return loaded


def as_pipeline(
    base: str | Path | StableDiffusionPipeline, device: str = "auto", dtype: Precision = "fp32"
) -> StableDiffusionPipeline:
    """A pipeline as it is, or the base of that name."""
    return (
        base
        if isinstance(base, StableDiffusionPipeline)
        else load_base(base, device=device, dtype=DTYPES[dtype])
    )


@contextmanager
def without_bars() -> Iterator[None]:
    """While open, transformers draws no bars; they would cross those of the job at hand."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _assemble(layout: Layout, folders: dict[str, Path], dtype: torch.dtype) -> StableDiffusionPipeline:
    models = {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}
    unet = _load(layout, "unet", UNet2DConditionModel, folders, **models)
    encoder = _load(layout, "text_encoder", CLIPTextModel, folders, **models)
    vae = _load(layout, "vae", AutoencoderKL, folders, **models)
    tokenizer = _load(layout, "tokenizer", CLIPTokenizer, folders)
    scheduler = _load(layout, "scheduler", DPMSolverMultistepScheduler, folders)
    if (
        unet.config.cross_attention_dim != encoder.config.hidden_size
        or unet.config.in_channels != vae.config.latent_channels
    ):
        raise Incompatible(
            f"the parts of {layout.main.name!r} do not fit: the UNet attends to width "
            f"{unet.config.cross_attention_dim} and takes "
            f"{unet.config.in_channels} channels, the encoder gives {encoder.config.hidden_size}, the "
            f"VAE {vae.config.latent_channels}"
        )
    return StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=encoder,
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _load(layout: Layout, part: str, kind: Any, folders: dict[str, Path], **options: Any) -> Any:
    """One part by the class that it must have; pickles are read as plain tensors, never run."""
    files, subfolder = layout.places[part]
    where = f"{subfolder} of {files.name!r}"
    try:
        form = load_options(part, folders[part]) if "output_loading_info" in options else {}
        loaded = kind.from_pretrained(str(folders[part]), **options, **form)
    except torch.OutOfMemoryError:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
        SafetensorError,
        pickle.UnpicklingError,
        KeyError,
        TypeError,
    ) as error:
        if "weights_only" in str(error):
            raise BadInput(
                f"{where} is a pickle that holds more than tensors; it was not run. Convert it to safetensors"
            ) from error
        if pointer := next(filter(None, map(pointer_advice, sorted(folders[part].iterdir()))), ""):
            raise EnvironmentProblem(f"{where} cannot be read: {pointer}") from error
        cause = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise EnvironmentProblem(
            f"{where} cannot be read, so a file is damaged, half downloaded or of another model "
            f"({cause[:160]}); "
            f"{files.repair(f'{subfolder}/{_suspect(folders[part])}')}"
        ) from error
    if "output_loading_info" not in options:
        return loaded
    model, report = loaded
    _require_complete(layout, part, where, report)
    return model


def _require_complete(layout: Layout, part: str, where: str, report: dict[str, Any]) -> None:
    """Raise ``BadInput`` for a part that was saved with an adapter or a wrapper, or lacks weights.

    Args:
        report: what transformers or diffusers says of the loading.
    """
    name = layout.places[part][1]
    lost = sorted(map(str, report["missing_keys"])) or sorted(
        str(key) for key in report.get("mismatched_keys", ())
    )
    if any(".lora_A." in str(key) or ".base_layer." in str(key) for key in report["unexpected_keys"]):
        raise BadInput(
            f"{where} was saved with an adapter in it; load its base, and save that after "
            "pipe.unload_lora_weights(), or fuse the adapter with `piu-lora stack fuse`"
        )
    if any(str(key).startswith(("_orig_mod.", "module.")) for key in report["unexpected_keys"]):
        raise BadInput(
            f"{where} was saved while it was compiled or wrapped; save the model inside: "
            f"pipe.{name} = pipe.{name}._orig_mod (or .module) before pipe.save_pretrained"
        )
    if lost:
        fault = f"{len(lost)} weights are missing or of another shape, the first is {lost[0]}"
        kind = f"an {layout.family.label}" if layout.family else "such a base"
        raise BadInput(f"{where} is not the {part} of {kind}: {fault}; pass another base")


def _suspect(folder: Path) -> str:
    """The file of a part where the damage is: a JSON file that is none, else the largest one."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    for path in files:
        if path.suffix == ".json":
            try:
                json.loads(path.read_text())
            except ValueError:
                return path.name
    return max(files, key=lambda path: path.stat().st_size).name


def _state(pipe: StableDiffusionPipeline, layout: Layout, family: str | None) -> None:
    """Write into the encoder's config what the base is, unless it says so itself; a pipeline saved later
    still knows.
    """
    stated = statement(pipe)
    if stated:
        if family is not None and stated["family"] != family:
            raise BadInput(f"the base {layout.id!r} states the family {stated['family']!r}, not {family!r}")
        return
    recognised = layout.family or (None if family else recognise_family(configs_of(pipe), layout.id))
    chosen = family or (recognised.name if recognised else "")
    files, name = layout.main, find_family(chosen).recognizer
    path = files.find(name) if isinstance(files, LocalFiles) and name else None
    if isinstance(files, HubFiles):
        path = files.cached(name)
    declare_family(
        pipe,
        chosen,
        base=layout.id,
        revision=files.commit if isinstance(files, HubFiles) else "",
        recognizer_sha256=hashlib.sha256(path.read_bytes()).hexdigest() if path else "",
    )


@cache
def _say_once(text: str) -> None:
    _log.warning("%s", text)


def resolve_device(device: str | torch.device) -> torch.device:
    """``auto`` is CUDA where there is one, else CPU.

    Raises:
        BadInput: no such device here.
    """
    # Under a launcher every process has its own.
    cuda = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    name = (cuda if torch.cuda.is_available() else "cpu") if str(device) == "auto" else str(device)
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(
            f"device {name!r} is not available here: {str(error).splitlines()[0]}; pass device=auto"
        ) from error
    return torch.device(name)
