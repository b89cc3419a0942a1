"""The receipt of an adapter: what it was made from, how, and what it was measured to do. It names nobody."""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self, cast, get_origin

from piu_lora.errors import BadInput

__all__ = ["FORMAT", "BaseRef", "Figure", "Receipt", "library_versions", "people_text", "settings_digest"]

FORMAT = "piu_lora.adapter/1"
_LIBRARIES = ("piu-lora", "torch", "diffusers", "peft", "transformers", "safetensors", "numpy")


@dataclass(frozen=True)
class BaseRef:
    """The base an adapter belongs to: its id and revision, and digests of the weights that adapters change."""

    id: str
    family: str
    attn2_sha256: str
    revision: str = ""
    text_encoder_sha256: str = ""


class Figure(NamedTuple):
    """ISM of one group of people by one recognizer; ``ratio`` is after / before, None where no face was found
    before.
    """

    recognizer: str
    group: str
    before: float
    after: float
    ratio: float | None
    interval: tuple[float, float] | None
    after_interval: tuple[float, float]


@dataclass(frozen=True)
class Receipt:
    """forget.json. Cosines are rounded to two decimals, so that they single out nobody in a bank.

    Attributes:
        base: what the adapter changes.
        method: of forgetting, or of merging, converting and so on.
        settings: all that determined the weights.
        anchor: its rule and its cosine to the forgotten person.
        counts: how many embeddings and people the split gave to whom.
        members: of a merged adapter: id, weight and weights' SHA-256 of each.
        evaluation: figures by recognizer, with their intervals.
        probe: a seeded measurement that needs neither bank nor person, for ``verify``.
        solution: of a closed form: the kept energy, the ranks and the condition number of its systems.
        files: SHA-256 by file name.
    """

    base: BaseRef
    method: str
    settings: dict[str, Any]
    anchor: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    members: list[dict[str, Any]] = field(default_factory=list)
    probe: dict[str, Any] = field(default_factory=dict)
    solution: dict[str, Any] = field(default_factory=dict)
    adapter_id: str = field(default_factory=lambda: secrets.token_hex(8))
    format: str = FORMAT

    @property
    def people(self) -> int:
        """How many people the adapter forgets.

        ``counts["people"]`` where it is written down, else one for each member that takes part in a merge, else
        one. (``forget`` leaves the number out for one person, ``merge`` where every member forgets one.)
        """
        if "people" in self.counts:
            return self.counts["people"]
        return sum(bool(member["weight"]) for member in self.members) or 1

    def for_people(self, people: int) -> Self:
        """The same receipt for so many people; the number is written down only where nothing else says it."""
        silent = dataclasses.replace(self, counts={k: v for k, v in self.counts.items() if k != "people"})
        if silent.people == people:
            return silent
        return dataclasses.replace(self, counts={**self.counts, "people": people})

    def to_json(self) -> str:
        """Pretty, with sorted keys."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Read a receipt back.

        Raises:
            BadInput: not JSON, another format, missing or foreign fields, values of another type.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                found = values.get("format") if isinstance(values, dict) else type(values).__name__
                raise BadInput(f"{where} has format {str(found)[:60]!r}; this version reads {FORMAT!r}")
            receipt = cls(**{**values, "base": BaseRef(**values["base"])})
            receipt._check()
        except BadInput:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = str(error)[:200] or type(error).__name__
            raise BadInput(f"{where} is damaged: {reason}; make or download the adapter again") from error
        return receipt

    def _check(self) -> None:
        """Raise where a value has another type than its field: a receipt may come from anywhere."""
        for owner in (self, self.base):
            for each in dataclasses.fields(owner):
                value, kind = getattr(owner, each.name), cast(type, each.type)
                wanted = get_origin(kind) or kind
                if not isinstance(value, wanted):
                    raise TypeError(f"{each.name} is {type(value).__name__}, expected {wanted.__name__}")
        texts = [
            *self.files.values(),
            *self.versions.values(),
            *(member["adapter_id"] for member in self.members),
        ]
        numbers = [
            *self.counts.values(),
            *self.seconds.values(),
            *(member["weight"] for member in self.members),
        ]
        if not all(isinstance(text, str) for text in texts) or not all(
            isinstance(number, int | float) for number in numbers
        ):
            raise TypeError("files, versions, members, counts or seconds hold values of another type")
        if not self.adapter_id.isalnum() or len(self.adapter_id) > 64:
            raise ValueError(f"adapter_id {self.adapter_id[:80]!r} is not letters and digits")
        self.figures()

    def figures(self) -> list[Figure]:
        """The ISM figures of the evaluation, in the order of the receipt."""
        return [
            Figure(
                str(recognizer), str(group), float(ism["before"]), float(ism["after"]),
                None if ism["ratio"] is None else float(ism["ratio"]), _pair(ism["ratio_interval"]), _pair(ism["after_interval"]) or (0, 0),
            )
            for recognizer, scores in self.evaluation.get("recognizers", {}).items() for group, ism in scores["ism"].items()
        ]  # fmt: skip


def _pair(values: Any) -> tuple[float, float] | None:
    if values is None:
        return None
    low, high = values
    return float(low), float(high)


def people_text(count: int) -> str:
    """``1 person``, ``20 people``."""
    return f"{count} {'person' if count == 1 else 'people'}"


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
