"""The header of a bank's file: which recognizer made the embeddings, and with which settings."""

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from piu_lora.documents import Text, first_problem, from_json
from piu_lora.errors import BadInput

__all__ = ["FORMAT", "BankHeader"]

FORMAT: Literal["piu_lora.bank/1"] = "piu_lora.bank/1"


class BankHeader(BaseModel):
    """What the header of a safetensors file says of the bank in it; keys of other programs are left aside.

    Attributes:
        recognizer: its name, or file name.
        recognizer_sha256: of its file; empty where it is not known.
        settings: how the embeddings were made (detector size and the like), JSON in the file.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    format: Literal["piu_lora.bank/1"] = FORMAT
    recognizer: Text = "unknown"
    recognizer_sha256: Text = ""
    settings: dict[str, Any] = Field(default_factory=dict)

    @field_validator("settings", mode="before")
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
            **self.model_dump(exclude={"settings"}),
            "settings": json.dumps(self.settings, sort_keys=True),
        }
