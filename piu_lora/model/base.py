"""Bases: the pipelines that adapters belong to, and what piu_lora needs to know about one."""

import hashlib
import json
import logging
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
from piu_lora.identity import RecognizerId
from piu_lora.model.family import FAMILIES, BaseFamily, find_family, recognise_family
from piu_lora.model.files import LocalFiles
from piu_lora.model.layout import Layout, is_folder, locate, split_revision

__all__ = [
    "DTYPES",
    "BaseInfo",
    "Precision",
    "as_pipeline",
    "attention_digest",
    "declare_family",
    "describe",
    "encoder_digest",
    "family_of",
    "load_base",
    "resolve_device",
    "without_bars",
]

_log = logging.getLogger("piu_lora")
Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class BaseInfo:
    """What a pipeline does not say of itself: its id and revision, its family, and the recognizer that
    conditions it.
    """

    id: str
    family: BaseFamily
    embedding_width: int
    recognizer: RecognizerId
    revision: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the family by its name."""
        return {**vars(self), "family": self.family.name, "recognizer": asdict(self.recognizer)}


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
            f"the parts of {layout.main.name!r} do not fit: the UNet attends to width {unet.config.cross_attention_dim} and takes "
            f"{unet.config.in_channels} channels, the encoder gives {encoder.config.hidden_size}, the VAE {vae.config.latent_channels}"
        )
    return StableDiffusionPipeline(
        vae=vae, unet=unet, text_encoder=encoder, tokenizer=tokenizer, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _load(layout: Layout, part: str, kind: Any, folders: dict[str, Path], **options: Any) -> Any:
    """One part by the class that it must have; pickles are read as plain tensors, never run."""
    files, subfolder = layout.places[part]
    where = f"{subfolder} of {files.name!r}"
    try:
        loaded = kind.from_pretrained(str(folders[part]), **options)
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
        cause = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise EnvironmentProblem(
            f"{where} cannot be read, so a file is damaged, half downloaded or of another model ({cause[:160]}); "
            f"{files.repair(f'{subfolder}/{_suspect(folders[part])}')}"
        ) from error
    if "output_loading_info" not in options:
        return loaded
    model, report = loaded
    lost = sorted(map(str, report["missing_keys"])) or sorted(
        str(key) for key in report.get("mismatched_keys", ())
    )
    if lost:
        what = f"{len(lost)} weights are missing or of another shape, the first is {lost[0]}"
        kind = f"an {layout.family.label}" if layout.family else "such a base"
        raise BadInput(f"{where} is not the {part} of {kind}: {what}; pass another base")
    return model


def _suspect(folder: Path) -> str:
    """The file of a part where the damage is: a JSON file that is none, else the largest one."""
    files = [path for path in folder.iterdir() if path.is_file()]
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
    stated = _statement(pipe)
    if stated:
        if family is not None and stated["family"] != family:
            raise BadInput(f"the base {layout.id!r} states the family {stated['family']!r}, not {family!r}")
        return
    recognised = layout.family or (None if family else recognise_family(_configs(pipe), layout.id))
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


def declare_family(
    pipe: StableDiffusionPipeline,
    family: str,
    *,
    base: str = "local",
    revision: str = "",
    recognizer_sha256: str = "",
) -> None:
    """Say of which family a loaded pipeline is; it is written into the config of its text encoder, so that a
    saved pipeline still knows.

    Args:
        family: the name of a registered family.
        base: what the receipt of an adapter calls this base.
        revision: of the base's repository.
        recognizer_sha256: digest of the file of the recognizer that conditions the base; empty where it is
            not known.

    Raises:
        BadInput: no family of that name.
    """
    kind = find_family(family)
    recognizer = RecognizerId(kind.recognizer, recognizer_sha256)
    if not recognizer_sha256 and kind.companions is not None:
        recognizer = kind.companions.bank().recognizer
    pipe.text_encoder.config.piu_lora = {
        "base": base,
        "revision": revision,
        "family": family,
        "embedding_width": kind.embedding_width,
        "recognizer": recognizer.name,
        "recognizer_sha256": recognizer.sha256,
    }


def _statement(pipe: StableDiffusionPipeline) -> dict[str, Any]:
    """What the config of the text encoder says of the base; empty where it says nothing."""
    return getattr(pipe.text_encoder.config, "piu_lora", None) or {}


def _configs(pipe: StableDiffusionPipeline) -> dict[str, dict[str, Any]]:
    encoder: dict[str, Any] = pipe.text_encoder.config.to_dict()
    return {"unet": dict(pipe.unet.config), "vae": dict(pipe.vae.config), "text_encoder": encoder}


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


def describe(pipe: StableDiffusionPipeline) -> BaseInfo:
    """What is known of a base: its text encoder states it under ``piu_lora`` in its config; one loaded
    otherwise is recognised by its shape, or declared with ``declare_family``.

    Raises:
        BadInput: it states a family that is not registered.
        Incompatible: it states none, and no family recognises it.
    """
    stated = _statement(pipe)
    if not stated:
        family = recognise_family(_configs(pipe), "the pipeline")
        recognizer = RecognizerId(family.recognizer, "")
        if family.companions is not None:
            recognizer = family.companions.bank().recognizer
        return BaseInfo("local", family, family.embedding_width, recognizer)
    return BaseInfo(
        stated["base"],
        find_family(stated["family"]),
        int(stated["embedding_width"]),
        RecognizerId(stated["recognizer"], stated["recognizer_sha256"]),
        stated.get("revision", ""),
    )


def split_family(base: str | Path) -> tuple[str | None, str]:
    """``family=base`` as (family, base); where no family is given, None."""
    text = str(base)
    family, separator, rest = text.partition("=")
    if not separator or is_folder(text):
        return None, text
    return find_family(family).name, rest


def family_of(base: str | Path | StableDiffusionPipeline) -> BaseFamily:
    """The family of a base, read from its name or its configs, without loading it.

    Raises:
        BadInput: there is no such base, or it states a family that is not registered.
        Incompatible: it states none, and no family recognises it.
        EnvironmentProblem: a repository on the Hub cannot be asked.
    """
    if isinstance(base, StableDiffusionPipeline):
        return describe(base).family
    family, text = split_family(base)
    name, revision = (text, None) if is_folder(text) else split_revision(text)
    if family or name in FAMILIES:
        return find_family(family or name)
    layout = locate(name, revision, None)
    if layout.family is not None:
        return layout.family
    configs = {"text_encoder": _config(layout, "text_encoder")}
    if stated := configs["text_encoder"].get("piu_lora"):
        return find_family(str(stated["family"]))
    return recognise_family(configs | {part: _config(layout, part) for part in ("unet", "vae")}, name)


def _config(layout: Layout, part: str) -> dict[str, Any]:
    files, folder = layout.places[part]
    try:
        config: dict[str, Any] = json.loads(files.get(f"{folder}/config.json").read_text())
    except ValueError:
        return {}  # damaged; loading says so
    return config


def attention_digest(unet: UNet2DConditionModel) -> str:
    """SHA-256 of all cross-attention weights of the base, in fp16, by name: the same for fp32 and fp16
    copies.

    Adapters that are attached are looked through.
    """
    return _digest({name: value for name, value in unet.named_parameters() if ".attn2." in name})


def encoder_digest(text_encoder: CLIPTextModel) -> str:
    """The same for all weights of the text encoder, by their names in the flat layout of transformers 5.6 and
    later.
    """
    return _digest(
        {name.removeprefix("text_model."): value for name, value in text_encoder.named_parameters()}
    )


@torch.no_grad()
def _digest(weights: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    plain = {
        name.replace(".base_layer", ""): value for name, value in weights.items() if ".lora_" not in name
    }
    for name in sorted(plain):
        digest.update(name.encode())
        digest.update(plain[name].detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()
