"""Which recognizers read photographs and generated faces for a base."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from piu_lora.config import FacesConfig
from piu_lora.errors import BadInput
from piu_lora.folders import default_pack
from piu_lora.identity import DLIB, DlibReader, FaceReader, IdentityBank, PhotoReader
from piu_lora.identity.faces import Several
from piu_lora.model import family_of
from piu_lora.telemetry import import_onnxruntime

__all__ = ["SecondRecognizer", "open_reader", "open_second", "providers_for", "reader_for", "require_both"]


@dataclass(frozen=True)
class SecondRecognizer:
    """A recognizer that only evaluates: it embeds pictures, and knows the bank's people by their own
    photographs.
    """

    reader: PhotoReader
    bank: IdentityBank

    def require_people_of(self, bank: IdentityBank) -> None:
        """Both banks must be made of the same photographs.

        Raises:
            BadInput: this one holds other people.
        """
        if self.bank.ids != bank.ids:
            raise BadInput(
                "the second recognizer's bank holds other people than the bank; "
                "build both from the same photographs"
            )


def providers_for(device: str) -> tuple[str, ...]:
    """The execution providers of onnxruntime for a device; ``auto`` takes CUDA where both torch and
    onnxruntime have it.
    """
    onnxruntime = import_onnxruntime()

    offered = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    on_gpu = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    return (
        ("CUDAExecutionProvider", "CPUExecutionProvider") if on_gpu and offered else ("CPUExecutionProvider",)
    )


def reader_for(
    base: str | Path | StableDiffusionPipeline,
    pack: str | Path | None,
    faces: FacesConfig,
    device: str = "auto",
) -> PhotoReader | None:
    """The recognizer that comes with the base, or a face pack; None where there is neither.

    Raises:
        BadInput, EnvironmentProblem: a pack was named, or lies in its usual place, and is none.
    """
    companions = family_of(base).companions if pack is None else None
    if companions is not None:
        return companions.reader()
    if pack is None and not default_pack().is_dir():
        return None
    return open_reader(pack, faces.several, device)


def open_reader(
    pack: str | Path | None, several: Several = "largest", device: str = "auto", threads: int = 0
) -> FaceReader | DlibReader:
    """The reader of a face pack, or of dlib's recognizer.

    Args:
        pack: its folder, or ``dlib``; the usual folder by default.
        threads: of a session; 0 takes as many as torch has.

    Raises:
        BadInput, EnvironmentProblem: there is no such pack, or it lacks a model; dlib is not installed.
    """
    if str(pack) == DLIB:
        return DlibReader(several=several)
    return FaceReader(
        pack or default_pack(), providers=providers_for(device), several=several, threads=threads
    )


def open_second(
    pack: str | Path | None, bank: str | Path | None, device: str = "auto"
) -> SecondRecognizer | None:
    """A face pack that only evaluates, and the bank's people as it sees them; None where neither is given.

    Raises:
        BadInput, Incompatible, EnvironmentProblem: one without the other, either cannot be read, or they do
            not belong together.
    """
    require_both(pack, bank)
    if pack is None or bank is None:
        return None
    reader, people = open_reader(pack, device=device), IdentityBank.load(bank)
    people.recognizer.require(reader.id, "the second bank", "the second face pack")
    return SecondRecognizer(reader, people)


def require_both(pack: str | Path | None, bank: str | Path | None) -> None:
    """A second recognizer comes with a bank of its own, or not at all.

    Raises:
        BadInput: one without the other.
    """
    if (pack is None) != (bank is None):
        raise BadInput(
            "a second recognizer knows nobody without a bank of its own: "
            "pass second=PACK and second_bank=FILE together"
        )
