"""The header of a bank's file: which recognizer made the embeddings, and with which settings."""

import json
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from piu_lora.documents import Text, first_problem, from_json
from piu_lora.errors import BadInput
from piu_lora.identity.geometry import Geometry, Within

__all__ = ["FORMAT", "BankHeader", "geometry_facts"]

FORMAT: Literal["piu_lora.bank/1"] = "piu_lora.bank/1"


class BankHeader(BaseModel):
    """What the header of a safetensors file says of the bank in it; keys of other programs are left aside.

    Attributes:
        recognizer: its name, or file name.
        recognizer_sha256: of its file; empty where it is not known.
        settings: how the embeddings were made (detector size and the like), JSON in the file.
        geometry: how the embeddings are distributed, as ``Geometry.to_dict`` has it, with the rest of
            ``Within``; JSON in the file, empty where it was not measured.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    format: Literal["piu_lora.bank/1"] = FORMAT
    recognizer: Text = "unknown"
    recognizer_sha256: Text = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    geometry: dict[str, Any] = Field(default_factory=dict)

    @field_validator("settings", "geometry", mode="before")
    @classmethod
    def _from_json(cls, value: object) -> object:
        return from_json(value) if isinstance(value, str) else value

    @classmethod
    def read(cls, header: dict[str, str], path: str) -> Self:
        """The header of a file.

        Raises:
            BadInput: the settings are no JSON object, or a value is out of bounds.
        """
        try:
            return cls.model_validate(header)
        except ValidationError as error:
            raise BadInput(
                f"cannot read the bank {path!r}: in its header, {first_problem(error, 'a bank')}; "
                "build it again or download it"
            ) from error

    def to_strings(self) -> dict[str, str]:
        """As safetensors keeps it."""
        return {
            **self.model_dump(exclude={"settings", "geometry"}),
            "settings": json.dumps(self.settings, sort_keys=True),
            **({"geometry": json.dumps(self.geometry)} if self.geometry else {}),
        }

    def measured(self, factors: torch.Tensor | None, width: int, path: str) -> Geometry | None:
        """The geometry in the header and in the tensor ``within``, (r, width); None where there is none.

        Raises:
            BadInput: it is damaged.
        """
        if not self.geometry:
            return None
        try:
            if factors is not None and (factors.shape[1:] != (width,) or not factors.isfinite().all()):
                raise ValueError(f"directions of shape {tuple(factors.shape)}")
            within = None if factors is None else Within(factors, float(self.geometry["rest"]))
            return Geometry.from_dict(self.geometry, within)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"cannot read the bank {path!r}: the geometry in its header is damaged "
                f"({type(error).__name__}: {error}); build it again or download it"
            ) from error


def geometry_facts(geometry: Geometry | None) -> dict[str, Any]:
    """What a header says of a geometry; nothing of none."""
    if geometry is None:
        return {}
    return geometry.to_dict() | ({"rest": geometry.within.rest} if geometry.within is not None else {})
