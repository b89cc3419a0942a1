"""The receipt of an adapter: what it was made from, how, and what it was measured to do. It names nobody."""

import hashlib
import importlib.metadata
import json
import platform
import secrets
from dataclasses import asdict, field, replace
from typing import Any, Literal, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from piu_lora.adapter.names import is_adapter_file
from piu_lora.adapter.records import (
    AdapterId,
    AnchorRecord,
    Count,
    EvaluationRecord,
    Figure,
    MemberRecord,
    Seconds,
    figures_of,
)
from piu_lora.documents import Text, first_problem, from_json, refuse_constant
from piu_lora.errors import BadInput

__all__ = [
    "FORMAT",
    "BaseRef",
    "Figure",
    "Receipt",
    "library_versions",
    "people_text",
    "receipt_schema",
    "settings_digest",
]

FORMAT: Literal["piu_lora.adapter/1"] = "piu_lora.adapter/1"
_LIBRARIES = ("piu-lora", "torch", "diffusers", "peft", "transformers", "safetensors", "numpy")
_NO_OTHER_KEYS = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_NO_OTHER_KEYS)
class BaseRef:
    """The base an adapter belongs to: its id, its revision, digests of the weights that adapters change."""

    id: Text
    family: Text
    attn2_sha256: Text
    revision: Text = ""
    text_encoder_sha256: Text = ""


@dataclass(frozen=True, config=_NO_OTHER_KEYS)
class Receipt:
    """forget.json. Cosines are rounded to two decimals, so that they single out nobody in a bank.

    Attributes:
        base: what the adapter changes.
        method: of forgetting, or of merging, converting and so on.
        settings: all that determined the weights; their types are the method's.
        anchor: its rule and its cosine to the forgotten person; empty where none was chosen.
        counts: how many embeddings and people the split gave to whom.
        evaluation: figures by recognizer, with their intervals.
        seconds: of training and evaluation.
        versions: of Python and of the libraries.
        files: SHA-256 by file name.
        members: of a merged adapter.
        probe: a seeded measurement that needs neither bank nor person, for ``verify``.
        solution: of a closed form: the kept energy, the ranks and the condition number of its systems.
    """

    base: BaseRef
    method: Text
    settings: dict[str, Any]
    anchor: AnchorRecord = field(default_factory=AnchorRecord)
    counts: dict[Text, Count] = field(default_factory=dict)
    evaluation: EvaluationRecord = field(default_factory=EvaluationRecord)
    seconds: dict[Text, Seconds] = field(default_factory=dict)
    versions: dict[Text, Text] = field(default_factory=dict)
    files: dict[Text, Text] = field(default_factory=dict)
    members: list[MemberRecord] = field(default_factory=list)
    probe: dict[str, Any] = field(default_factory=dict)
    solution: dict[str, Any] = field(default_factory=dict)
    adapter_id: AdapterId = field(default_factory=lambda: secrets.token_hex(8))
    format: Literal["piu_lora.adapter/1"] = FORMAT

    @property
    def people(self) -> int:
        """How many people the adapter forgets.

        ``counts["people"]`` where it is written down, else one for each member that takes part in a merge,
        else one. (``forget`` leaves the number out for one person, ``merge`` where every member forgets one.)
        """
        if "people" in self.counts:
            return self.counts["people"]
        return sum(bool(member["weight"]) for member in self.members) or 1

    def for_people(self, people: int) -> Self:
        """The same receipt for so many people; the number is written down only where nothing else says it."""
        silent = replace(self, counts={key: n for key, n in self.counts.items() if key != "people"})
        if silent.people == people:
            return silent
        return replace(self, counts={**self.counts, "people": people})

    def figures(self) -> list[Figure]:
        """The ISM figures of the evaluation, in the order of the receipt."""
        return figures_of(self.evaluation)

    def to_json(self) -> str:
        """Pretty, with sorted keys."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Read a receipt back.

        Args:
            where: the file, as messages begin with it.

        Raises:
            BadInput: not JSON, another format, missing or foreign fields, values of another type or out of
                bounds; the message quotes the value and where it stands.
        """
        try:
            values = json.loads(text, parse_constant=refuse_constant)
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                other = values.get("format") if isinstance(values, dict) else type(values).__name__
                raise BadInput(f"{where} has format {str(other)[:60]!r}; this version reads {FORMAT!r}")
            receipt = TypeAdapter(cls).validate_python(values)
            from_json(text)  # the numbers in values of any type; of the others, the field was named
        except BadInput:
            raise
        except ValidationError as error:
            reason = first_problem(error, "a receipt")
        except (ValueError, RecursionError) as error:
            reason = str(error)[:200] or type(error).__name__
        else:
            receipt._check_names(where)
            return receipt
        raise BadInput(f"{where} is damaged: {reason}; make or download the adapter again")

    def _check_names(self, where: str) -> None:
        """Nothing may be listed but what an adapter has: ``.git/config`` beside it would be obeyed by git."""
        for name in self.files:
            if not is_adapter_file(name):
                raise BadInput(
                    f"{where} lists {name[:80]!r}, which is no file of its folder: an adapter has none of "
                    "that name; do not use this adapter"
                )


def receipt_schema() -> dict[str, Any]:
    """The JSON Schema of forget.json."""
    return TypeAdapter(Receipt).json_schema()


def people_text(count: int) -> str:
    """``1 person``, ``20 people``."""
    return f"{count} {'person' if count == 1 else 'people'}"


def settings_digest(base: BaseRef, method: str, settings: dict[str, Any]) -> str:
    """SHA-256 of what determined the weights.

    The weights' header carries it, so equal runs give equal bytes.
    """
    text = json.dumps([asdict(base), method, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape the result."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
