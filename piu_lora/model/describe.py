"""What is known of a base: its id, family and recognizer, as its config states or its shape tells."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline

from piu_lora.errors import Incompatible
from piu_lora.foreign import read_text
from piu_lora.identity import RecognizerId
from piu_lora.model.family import FAMILIES, BaseFamily, find_family, recognise_family
from piu_lora.model.layout import Layout, is_folder, locate, split_revision

__all__ = ["BaseInfo", "configs_of", "declare_family", "describe", "family_of", "split_family", "statement"]


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


def statement(pipe: StableDiffusionPipeline) -> dict[str, Any]:
    """What the config of the text encoder says of the base; empty where it says nothing.

    Raises:
        Incompatible: the pipeline has let go of its text encoder.
    """
    if pipe.text_encoder is None:
        raise Incompatible(
            "this pipeline has no text encoder (text_encoder=None), which says what base it is; load the "
            "adapter first, or load the base whole"
        )
    return getattr(pipe.text_encoder.config, "piu_lora", None) or {}


def configs_of(pipe: StableDiffusionPipeline) -> dict[str, dict[str, Any]]:
    """The configs of the parts whose values tell families apart, by part."""
    encoder: dict[str, Any] = pipe.text_encoder.config.to_dict()
    return {"unet": dict(pipe.unet.config), "vae": dict(pipe.vae.config), "text_encoder": encoder}


def describe(pipe: StableDiffusionPipeline) -> BaseInfo:
    """What is known of a base: its text encoder states it under ``piu_lora`` in its config; one loaded
    otherwise is recognised by its shape, or declared with ``declare_family``.

    Raises:
        BadInput: it states a family that is not registered.
        Incompatible: it states none, and no family recognises it.
    """
    stated = statement(pipe)
    if not stated:
        family = recognise_family(configs_of(pipe), "the pipeline")
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
    """``family=base`` as (family, base); where no family is given, None. A family's own name may be in any
    case.
    """
    text = str(base)
    family, separator, rest = text.partition("=")
    if not separator or is_folder(text):
        return None, _family_name(text)
    return find_family(family).name, _family_name(rest)


def _family_name(base: str) -> str:
    """``Mini`` as ``mini``, unless there is such a folder."""
    return base.lower() if base.lower() in FAMILIES and not is_folder(base) else base


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
        config: dict[str, Any] = json.loads(read_text(files.get(f"{folder}/config.json")))
    except ValueError:
        return {}  # damaged; loading says so
    return config
