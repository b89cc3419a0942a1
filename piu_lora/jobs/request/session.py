"""What every job opens first: the base, the bank, and the recognizers of photographs and pictures."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from diffusers import StableDiffusionPipeline

from piu_lora.adapter import BaseRef
from piu_lora.config import FacesConfig
from piu_lora.identity import IdentityBank, PhotoReader
from piu_lora.jobs.request.readers import SecondRecognizer, reader_for
from piu_lora.jobs.request.request import bank_for
from piu_lora.model import (
    BaseFamily,
    BaseInfo,
    Precision,
    as_pipeline,
    attention_digest,
    describe,
    encoder_digest,
    family_of,
)
from piu_lora.progress import Progress, silent

__all__ = ["Base", "Session", "open_session"]

Base: TypeAlias = str | Path | StableDiffusionPipeline


@dataclass(frozen=True, eq=False)
class Session:
    """What the parts of a job share. The base is loaded when its pipeline is first asked for, so everything
    else can be checked before.

    Attributes:
        base: a name, a folder, a Hub id, or a loaded pipeline.
        bank: the people to retain.
        reader: the conditioning recognizer: it reads photographs and scores generated faces; None where no
            face pack is at hand.
        second: a recognizer that only evaluates.
        device, dtype: of a base given by name.
        progress: told how far the job is.
    """

    base: Base
    bank: IdentityBank
    reader: PhotoReader | None = None
    second: SecondRecognizer | None = None
    device: str = "auto"
    dtype: Precision = "fp32"
    progress: Progress = silent

    @cached_property
    def pipe(self) -> StableDiffusionPipeline:
        """The base's pipeline, loaded at the first call.

        Raises:
            BadInput, Incompatible, EnvironmentProblem: as ``load_base``.
        """
        return as_pipeline(self.base, self.device, self.dtype)

    @property
    def family(self) -> BaseFamily:
        """The base's family, by its name as long as it is not loaded."""
        return family_of(self.pipe if "pipe" in vars(self) else self.base)

    @property
    def info(self) -> BaseInfo:
        """What is known of the loaded base."""
        return describe(self.pipe)

    @cached_property
    def reference(self) -> BaseRef:
        """The loaded base as receipts name it; ask before it is cast, which loses digits of its digests."""
        return base_reference(self.pipe)


def base_reference(pipe: StableDiffusionPipeline) -> BaseRef:
    """A loaded base as receipts name it."""
    info = describe(pipe)
    return BaseRef(
        info.id,
        info.family.name,
        attention_digest(pipe.unet),
        info.revision,
        encoder_digest(pipe.text_encoder),
    )


def open_session(
    base: Base,
    bank: IdentityBank | str | Path | None = None,
    pack: str | Path | None = None,
    *,
    faces: FacesConfig = FacesConfig(),  # noqa: B008
    second: SecondRecognizer | None = None,
    device: str = "auto",
    dtype: Precision = "fp32",
    progress: Progress = silent,
) -> Session:
    """Open the bank and the recognizer of photographs; the base waits until it is asked for.

    Args:
        base, bank, pack, device: as for ``forget``.
        faces: how photographs with several faces are read.
        second: a recognizer that only evaluates.
        dtype: of a base given by name.
        progress: told how far the job is.

    Raises:
        BadInput: no such bank, or none was named and the base has none of its own.
        EnvironmentProblem: a face pack that cannot be used.
    """
    people = bank_for(base, bank)
    reader = reader_for(base, pack, faces, device)
    return Session(base, people, reader, second, device, dtype, progress)
