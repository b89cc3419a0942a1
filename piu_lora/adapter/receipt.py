"""The receipt of an adapter: what it was made from, how, and what it was measured to do. It names nobody."""

import hashlib
import importlib.metadata
import json
import platform
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from piu_lora.errors import BadInput

__all__ = ["FORMAT", "BaseRef", "Receipt", "library_versions", "settings_digest"]

FORMAT = "piu_lora.adapter/1"
_LIBRARIES = ("piu-lora", "torch", "diffusers", "peft", "transformers", "safetensors", "numpy")


@dataclass(frozen=True)
class BaseRef:
    """The base an adapter belongs to: its id and revision, and a digest of its cross-attention weights."""

    id: str
    family: str
    attn2_sha256: str
    revision: str = ""


@dataclass(frozen=True)
class Receipt:
    """forget.json. Cosines are rounded to two decimals, so that they single out nobody in a bank."""

    base: BaseRef
    method: str
    settings: dict[str, Any]
    anchor: dict[str, Any]
    counts: dict[str, int]
    evaluation: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # sha256 by file name
    adapter_id: str = field(default_factory=lambda: secrets.token_hex(8))
    format: str = FORMAT

    def to_json(self) -> str:
        """Pretty, with sorted keys."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Read a receipt back.

        Raises:
            BadInput: not JSON, another format, missing or foreign fields.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                found = values.get("format") if isinstance(values, dict) else type(values).__name__
                raise BadInput(f"{where} has format {found!r}; this version reads {FORMAT!r}")
            return cls(**{**values, "base": BaseRef(**values["base"])})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BadInput(f"{where} is damaged: {error}; make or download the adapter again") from error


def settings_digest(base: BaseRef, method: str, settings: dict[str, Any]) -> str:
    """SHA-256 of what determined the weights; the weights' header carries it, so equal runs give equal bytes."""
    text = json.dumps([asdict(base), method, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape the result."""
    found = {name: _version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **found}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
