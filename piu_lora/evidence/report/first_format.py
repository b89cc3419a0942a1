"""The short report that adapter folders carried before: figures by recognizer, no head. It is read, not
written.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from piu_lora.documents import Cosine, Count, Document, Number, parsed
from piu_lora.evidence.report.document import read_object
from piu_lora.evidence.report.measures import (
    Accuracy,
    BeforeAfter,
    Difference,
    FacelessCount,
    Far,
    Interval,
    MeanShare,
    Recognised,
    Threshold,
    Tries,
    Verified,
)
from piu_lora.groups import GroupName

__all__ = ["FIRST_FORMAT", "ShortIsm", "ShortRecognizer", "ShortReport", "read_short_report"]

FIRST_FORMAT = "piu_lora.report/1"


class ShortIsm(Document):
    """Identity similarity of a group's images; the people were not counted at first."""

    before: Cosine | None
    before_interval: Interval | None
    after: Cosine | None
    after_interval: Interval | None
    ratio: Number | None
    ratio_interval: Interval | None
    difference: Difference | None = None
    n: Count
    people: Count | None = None


class ShortRecognizer(Document):
    """What one recognizer says; verification came later."""

    ism: dict[GroupName, ShortIsm]
    recognised: dict[GroupName, Recognised]
    no_face: dict[GroupName, FacelessCount]
    before: Accuracy
    after: Accuracy
    thresholds: dict[Far, Threshold] = {}
    verified: dict[Far, dict[GroupName, Verified | None] | None] = {}
    leak: dict[Far, dict[Tries, BeforeAfter | None] | None] = {}
    strangers: dict[Far, MeanShare | None] = {}


class ShortReport(Document):
    """The figures at the end of ``forget``."""

    format: Literal["piu_lora.report/1"]
    settings: dict[str, JsonValue]
    images: Annotated[Count, Field(description="Conditions and seeds; each was drawn before and after")]
    recognizers: dict[str, ShortRecognizer]


def read_short_report(path: Path) -> ShortReport:
    """The report of an adapter folder of an earlier version.

    Raises:
        BadInput: the file is absent, no JSON, or not of the form.
    """
    return parsed(ShortReport, read_object(path), "report")
