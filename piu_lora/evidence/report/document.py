"""The report as a document, report.json: its head, its verdict, its two sections. It names nobody."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from piu_lora.documents import Contradiction, Count, Document, Many, Number, Word, from_json, parsed
from piu_lora.errors import BadInput
from piu_lora.evidence.report.sections import Audit, Evaluation
from piu_lora.foreign import read_text

__all__ = [
    "REPORT_FORMAT",
    "AdapterFacts",
    "BaseFacts",
    "Environment",
    "PhotographCounts",
    "Relation",
    "Report",
    "Verdict",
    "VerdictLine",
    "read_object",
    "read_report",
    "report_of",
    "report_schema",
    "to_json",
]

REPORT_FORMAT = "piu_lora.report/2"
Relation = Literal["<=", ">="]


class AdapterFacts(Document):
    """The adapter."""

    id: Annotated[Word, Field(description="Opaque, random")]
    method: Annotated[Word, Field(description="The method's name")]
    weights_sha256: Annotated[Word, Field(description="Digest of the weights file")]
    bytes: Annotated[Count, Field(description="Size of the weights file")]
    people: Annotated[int, Field(ge=1, description="How many people it makes the base forget")]


class BaseFacts(Document):
    """The base it belongs to."""

    id: Word
    family: str
    revision: str | None


class Environment(Document):
    """Where it ran."""

    libraries: Annotated[dict[str, str], Field(description="Versions by library")]
    device: str
    dtype: str
    threads: Count | None
    platform: str


class PhotographCounts(Document):
    """Private. Counts only."""

    people: Count
    train: Annotated[Count, Field(description="Embeddings trained on")]
    held_out: Annotated[Count, Field(description="Embeddings kept back")]
    references: Annotated[Count, Field(description="Embeddings compared with")]


class VerdictLine(Document):
    """One condition."""

    name: Annotated[Word, Field(description="The figure's name in a policy")]
    recognizer: Annotated[str, Field(description="Whose figure; empty where none is asked")]
    text: Annotated[Word, Field(description="The figure in words")]
    value: Annotated[Number | None, Field(description="Null where it was not measured, which fails")]
    limit: Annotated[Number, Field(description="What it was judged by")]
    relation: Annotated[Relation, Field(description="What the value has to be, seen from the limit")]
    reason: Annotated[str, Field(description="Why there is no value, or a remark")]
    passed: bool

    @classmethod
    def judged(cls, name: str, limit: float, relation: Relation, value: float | None, **words: str) -> Self:
        """A figure held to its limit: met exactly is met; without a value it does not pass.

        Args:
            words: ``recognizer``, ``text`` and ``reason``; the reason is for figures without a value.
        """
        met = value is not None and (value <= limit if relation == "<=" else value >= limit)
        reason = (words.get("reason") or "it was not measured") if value is None else ""
        return cls(
            name=name,
            recognizer=words.get("recognizer", ""),
            text=words["text"],
            value=value,
            limit=limit,
            relation=relation,
            reason=reason,
            passed=met,
        )

    @model_validator(mode="after")
    def _follows(self) -> Self:
        if self.value is None:
            if self.passed:
                raise Contradiction(".passed", "is true, expected false: what was not measured fails")
            if not self.reason:
                raise Contradiction(".reason", "is empty, expected why there is no value")
        elif self.passed != (self.value <= self.limit if self.relation == "<=" else self.value >= self.limit):
            comparison = f"{self.value} {self.relation} {self.limit}"
            raise Contradiction(".passed", f"is {self.passed}, but {comparison} says otherwise")
        return self


class Verdict(Document):
    """What the figures were judged by, and the outcome."""

    passed: Annotated[bool, Field(description="Whether there are lines and every one passed")]
    policy: Annotated[str, Field(description="default, or the name or digest of the policy file")]
    lines: Annotated[tuple[VerdictLine, ...], Many]

    @model_validator(mode="after")
    def _follows(self) -> Self:
        if self.passed != (bool(self.lines) and all(line.passed for line in self.lines)):
            raise Contradiction(".passed", f"is {self.passed}, which its lines do not say")
        return self

    @property
    def missed(self) -> tuple[VerdictLine, ...]:
        """The lines that do not pass."""
        return tuple(line for line in self.lines if not line.passed)


def _plain(values: Any) -> Any:
    """Settings come with tuples, which JSON writes as arrays."""
    try:
        return json.loads(json.dumps(values, allow_nan=False))
    except TypeError as error:
        raise ValueError(f"is no JSON: {error}") from None


class Report(Document):
    """One report about one adapter."""

    model_config = ConfigDict(json_schema_extra={"$id": "urn:piu-lora:report:2"})

    format: Literal["piu_lora.report/2"]
    public: Annotated[bool, Field(description="Whether what is about the forgotten individually is left out")]
    seed: Annotated[Count, Field(description="Seed of the run")]
    settings: Annotated[
        dict[str, JsonValue],
        BeforeValidator(_plain),
        Field(description="The run's settings; they name nobody"),
    ]
    verdict: Annotated[Verdict | None, Field(description="Null before anything was judged")]
    adapter: AdapterFacts
    base: BaseFacts
    environment: Environment
    person: PhotographCounts | None
    audit: Audit | None = None
    evaluation: Evaluation | None = None

    @model_validator(mode="after")
    def _public_form(self) -> Self:
        if self.public:
            for path in self._private_parts():
                raise Contradiction(path, "must not be in a public report")
        return self

    def _private_parts(self) -> Iterator[str]:
        """Where something about the forgotten people individually stands."""
        if self.person is not None:
            yield ".person"
        if self.evaluation is None:
            return
        if self.evaluation.notes:
            yield ".evaluation.notes"
        for name, recognizer in self.evaluation.recognizers.items():
            for part in ("scores", "neighbours"):
                if getattr(recognizer, part) is not None:
                    yield f".evaluation.recognizers.{name}.{part}"
            for far, bystanders in recognizer.bystanders.items():
                if bystanders is not None and bystanders.landing is not None:
                    yield f".evaluation.recognizers.{name}.bystanders[{far!r}].landing"


def report_of(values: Mapping[str, Any]) -> Report:
    """The report that plain values make.

    Raises:
        BadInput: they are not of the form, or contradict themselves; names the JSON path, what stands there
            and what was expected.
    """
    written = values.get("format")
    if written != REPORT_FORMAT:
        raise BadInput(
            f"report: $.format is {written!r}, expected {REPORT_FORMAT!r}; "
            "write the report anew with this version"
        )
    return parsed(Report, values, "report")


def read_report(path: Path) -> Report:
    """The report of a report.json.

    Raises:
        BadInput: the file is absent, no JSON, or not of the form.
    """
    return report_of(read_object(path))


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a report's file.

    Raises:
        BadInput: the file is absent, or holds none.
    """
    try:
        document = from_json(read_text(path))
    except FileNotFoundError:
        raise BadInput(f"no report at {path}; write one with piu-lora evaluate or piu-lora audit") from None
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadInput(f"{path} holds a {type(document).__name__}, expected an object")
    return document


def to_json(report: Report) -> str:
    """The report as JSON text: indented, groups and rates in their own order, which tables keep."""
    return json.dumps(report.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def report_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Report.model_json_schema()}
