"""The parts of a receipt, as plain JSON values with their types and bounds.

A key that this version does not know is kept, so that receipts of a later one lose nothing.
"""

from typing import Annotated, NamedTuple, NotRequired

from pydantic import ConfigDict, Field, WrapValidator, with_config
from typing_extensions import TypedDict

from piu_lora.documents import Text, as_written

__all__ = [
    "AdapterId",
    "AnchorRecord",
    "CompressionRecord",
    "Count",
    "EvaluationRecord",
    "Figure",
    "IsmRecord",
    "LayerRecord",
    "MemberRecord",
    "Number",
    "RecognizerRecord",
    "Seconds",
    "figures_of",
]

_LARGEST = 10**9


_FINITE = Field(strict=True, ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)
_AS_WRITTEN = WrapValidator(as_written)
AdapterId = Annotated[str, Field(strict=True, pattern=r"^[^\W_]{1,64}$")]
Count = Annotated[int, Field(strict=True, ge=0, le=_LARGEST)]
Number = Annotated[float, _FINITE, _AS_WRITTEN]
Seconds = Annotated[float, _FINITE, Field(ge=0), _AS_WRITTEN]
Cosine = Annotated[float, _FINITE, Field(ge=-1, le=1), _AS_WRITTEN]
Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]


@with_config(ConfigDict(extra="allow"))
class AnchorRecord(TypedDict, total=False):
    """How the anchor was chosen, and its cosine with the forgotten person, rounded to two decimals."""

    rule: Text
    cosine: Cosine


@with_config(ConfigDict(extra="allow"))
class MemberRecord(TypedDict):
    """A member of a merged adapter."""

    adapter_id: Text
    weight: Number
    weights_sha256: NotRequired[Text]


@with_config(ConfigDict(extra="allow"))
class IsmRecord(TypedDict):
    """ISM of one group of people; the ratio is after / before, null where no face was found before."""

    before: Number
    after: Number
    ratio: Number | None
    ratio_interval: Interval | None
    after_interval: Interval | None


@with_config(ConfigDict(extra="allow"))
class RecognizerRecord(TypedDict):
    """What one recognizer measured, the ISM by group."""

    ism: dict[Text, IsmRecord]


@with_config(ConfigDict(extra="allow"))
class LayerRecord(TypedDict):
    """What compression and storage made of one layer."""

    rank: Count
    relative: Number


@with_config(ConfigDict(extra="allow"))
class CompressionRecord(TypedDict):
    """What compression and storage lost, as a share of each layer's change (spectral norm)."""

    worst_relative: Number
    layers: dict[Text, LayerRecord]


@with_config(ConfigDict(extra="allow"))
class EvaluationRecord(TypedDict, total=False):
    """What was measured: before and after by recognizer, or the loss of a conversion."""

    images: Count
    recognizers: dict[Text, RecognizerRecord]
    compression: CompressionRecord
    left_out: dict[Text, Number]


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


def figures_of(evaluation: EvaluationRecord) -> list[Figure]:
    """The ISM figures of an evaluation, in its order."""
    return [
        Figure(
            recognizer,
            group,
            float(ism["before"]),
            float(ism["after"]),
            None if ism["ratio"] is None else float(ism["ratio"]),
            _pair(ism["ratio_interval"]),
            _pair(ism["after_interval"]) or (0, 0),
        )
        for recognizer, scores in evaluation.get("recognizers", {}).items()
        for group, ism in scores["ism"].items()
    ]


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (float(values[0]), float(values[1]))
