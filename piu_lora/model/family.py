"""Base families: everything that is known of all bases of one kind, in one object, found by name."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from piu_lora.errors import BadInput, Incompatible
from piu_lora.identity import IdentityBank, PhotoReader

__all__ = [
    "ENCODER_LAYERS",
    "FAMILIES",
    "UNET_LAYERS",
    "BaseFamily",
    "Companions",
    "Download",
    "Prompt",
    "Source",
    "companions_of",
    "find_family",
    "recognise_family",
    "register",
    "stated_family",
]

UNET_LAYERS = r".*attn2\.(to_q|to_k|to_v|to_out\.0)"  # the cross-attention of a diffusers UNet
ENCODER_LAYERS = r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"  # every linear layer of a CLIP text encoder
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    """How an embedding becomes a condition: this text is encoded, with the embedding, zero-padded to the
    width of the encoder, in place of the token embedding of ``token``.

    Attributes:
        text: holds ``token`` once.
        token: one token of the tokenizer.
    """

    text: str = "photo of a id person"
    token: str = "id"


@dataclass(frozen=True)
class Download:
    """The files that a base needs from one repository of the Hub.

    Attributes:
        label: what people call the model.
        repository, revision: on the Hub, pinned.
        files: bytes by file, rounded: how long a download takes, and whether it fits on the disk.
    """

    label: str
    repository: str
    revision: str
    files: Mapping[str, int]


@dataclass(frozen=True)
class Source:
    """Where the published weights of a family are.

    Attributes:
        repository, revision: on the Hub, pinned.
        folders: the folder of each part that the repository holds in a layout of its own; ``unet`` at least.
        parts: repository and revision that lend the other parts.
        downloads: everything that loading the base fetches.
    """

    repository: str
    revision: str
    folders: Mapping[str, str]
    parts: tuple[str, str]
    downloads: tuple[Download, ...] = ()

    @property
    def marker(self) -> str:
        """The file by which a folder or repository in this layout is told."""
        return f"{self.folders['unet']}/config.json"


@dataclass(frozen=True)
class Companions:
    """The people and recognizers that come with a base, so that nothing else has to be at hand.

    Attributes:
        bank: people embedded by the recognizer that conditions the base.
        reader: that recognizer.
        second_bank, second_reader: the same people by a recognizer that only evaluates.
        photographs: ``(row, count)`` to photographs (count, 3, h, w), RGB in [0, 1], of the person in a row
            of the bank, which no bank holds.
        differentiable: the conditioning recognizer with gradients, on a device: (n, 3, h, w) in [0, 1] to
            (n, d) unit rows.
        tuned_on: rows of the bank whose people were used to choose defaults; comparisons leave them out.
        hosts: the folder of ``lcm.safetensors``, ``expression.safetensors`` and ``controlnet`` for this base.
    """

    bank: Callable[[], IdentityBank]
    reader: Callable[[], PhotoReader]
    second_bank: Callable[[], IdentityBank] | None = None
    second_reader: Callable[[], PhotoReader] | None = None
    photographs: Callable[[int, int], torch.Tensor] | None = None
    differentiable: Callable[[torch.device], Callable[[torch.Tensor], torch.Tensor]] | None = None
    tuned_on: frozenset[int] = frozenset()
    hosts: Callable[[], Path] | None = None


@dataclass(frozen=True)
class BaseFamily:
    """One kind of base, for example Arc2Face and everything fine-tuned from it.

    Attributes:
        name: what receipts and saved bases call it; ``load_base(name)`` loads its weights, where it has any.
        label: what people call it.
        embedding_width: d of the identity embeddings.
        recognizer: the file name of the recognizer that conditions it, beside its weights.
        prompt: how an embedding becomes a condition.
        components: of the pipeline, those that may carry adapters, each with a regular expression over the
            names of its modules that may.
        shape: values in the configs of the parts by which a base that does not state its family is
            recognised, by ``part.key``; empty for a family that has to be stated.
        presets: settings of a forget run that were measured on this family, as nested plain values: by the
            name of a method, and under ``""`` for every method.
        audit: settings of an audit on this family.
        baselines: settings of the baseline methods on this family, by baseline.
        folder: its weights in the layout of diffusers, where they come with the package.
        source: where its weights are otherwise.
        companions: people and recognizers that come with it.
        threads: on which a picture of its bases is generated as fast as on more; 0 for all there are.
        real_people: its images may be taken for real people, so that a missing safety checker is mentioned.
        tags: of a model card on the Hub.
    """

    name: str
    label: str
    embedding_width: int
    recognizer: str = ""
    prompt: Prompt = field(default_factory=Prompt)
    components: Mapping[str, str] = field(
        default_factory=lambda: {"unet": UNET_LAYERS, "text_encoder": ENCODER_LAYERS}
    )
    shape: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Values] = field(default_factory=dict)
    audit: Values = field(default_factory=dict)
    baselines: Mapping[str, Values] = field(default_factory=dict)
    folder: Callable[[], Path] | None = None
    source: Source | None = None
    companions: Companions | None = None
    threads: int = 0
    real_people: bool = True
    tags: tuple[str, ...] = ()

    def misfit(self, configs: Mapping[str, Values]) -> str:
        """Why a base with these configs, by part, is not of this family; empty where it may be."""
        if not self.shape:
            return "has to be stated"
        for key, expected in self.shape.items():
            part, _, name = key.partition(".")
            value = configs.get(part, {}).get(name)
            if (list(value) if isinstance(value, list | tuple) else value) != expected:
                return f"{key} is {value!r}, not {expected!r}"
        return ""

    def require_component(self, component: str, method: str) -> None:
        """A method changes components that may carry adapters.

        Raises:
            BadInput: this one may not.
        """
        if component not in self.components:
            raise BadInput(
                f"method {method!r} changes the {component} of the base, and on the family "
                f"{self.name!r} only "
                f"{' and '.join(self.components)} may carry an adapter; choose another method"
            )


FAMILIES: dict[str, BaseFamily] = {}


def register(family: BaseFamily) -> BaseFamily:
    """Add a family to the registry.

    Raises:
        ValueError: another family has this name.
    """
    if FAMILIES.get(family.name, family) is not family:
        raise ValueError(f"a base family called {family.name!r} is registered already")
    FAMILIES[family.name] = family
    return family


def find_family(name: str) -> BaseFamily:
    """The family of that name.

    Raises:
        BadInput: unknown; the message lists the known ones.
    """
    if name not in FAMILIES:
        close = difflib.get_close_matches(name, FAMILIES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(FAMILIES)}"
        raise BadInput(f"unknown base family {name!r}: {hint}")
    return FAMILIES[name]


def stated_family(model: Any) -> BaseFamily | None:
    """The family that the config of a text encoder states; None where it states none.

    Raises:
        BadInput: it is not registered.
    """
    statement = getattr(model.config, "piu_lora", None)
    return find_family(statement["family"]) if statement else None


def recognise_family(configs: Mapping[str, Values], name: str) -> BaseFamily:
    """The family whose shape a base has that does not state one.

    Args:
        configs: of ``unet``, ``vae`` and ``text_encoder``.
        name: of the base, for the message.

    Raises:
        Incompatible: none; the message says why, family by family.
    """
    misfits = {family.name: family.misfit(configs) for family in FAMILIES.values()}
    for family, misfit in misfits.items():
        if not misfit:
            return FAMILIES[family]
    reasons = "; ".join(f"{family}: {misfit}" for family, misfit in misfits.items())
    raise Incompatible(
        f"no base family recognises {name!r} ({reasons}); if it is one of them all the same, say which: "
        "load_base(..., family=NAME), or NAME=BASE for the base"
    )


def companions_of(bank: IdentityBank) -> Companions | None:
    """The companions of the family whose own bank this is; None for every other bank."""
    for family in FAMILIES.values():
        if family.companions is not None and family.companions.bank().digest == bank.digest:
            return family.companions
    return None
