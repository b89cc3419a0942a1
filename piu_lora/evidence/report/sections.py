"""The two sections of a report: what an evaluation measured, and what an audit tried."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from piu_lora.documents import Amount, Contradiction, Cosine, Count, Document, Many, Number, Share, Word
from piu_lora.evidence.report.measures import (
    Accuracy,
    Agreement,
    BeforeAfter,
    Bystanders,
    Change,
    FacelessCount,
    Far,
    Ism,
    MeanNumber,
    MeanShare,
    Neighbours,
    Recognised,
    ScoreChange,
    Scores,
    Threshold,
    Tries,
    Verified,
)
from piu_lora.groups import GroupName

__all__ = [
    "Attack",
    "Audit",
    "Cell",
    "Curve",
    "Doubles",
    "Evaluation",
    "Expected",
    "FaceQuality",
    "Kid",
    "KidChange",
    "Quality",
    "Recognizer",
    "References",
    "Series",
    "Sharpness",
    "Sweep",
    "SweepFigures",
    "SweepPoint",
]


class References(Document):
    """What the forgotten people's images are verified against."""

    refused: Annotated[str, Field(description="Why they cannot be verified; empty where they can")]


class Recognizer(Document):
    """What one recognizer says. By FAR, null means that the rate's threshold was refused."""

    role: Annotated[
        Literal["conditions the base", "only evaluates"],
        Field(description="What the recognizer has to do with the base"),
    ]
    thresholds: dict[Far, Threshold]
    references: References = References(refused="")
    ism: dict[GroupName, Ism | None]
    recognised: dict[GroupName, Recognised | None]
    no_face: dict[GroupName, FacelessCount]
    before: Accuracy | None
    after: Accuracy | None
    verified: dict[Far, dict[GroupName, Verified | None] | None]
    leak: Annotated[
        dict[Far, dict[Tries, BeforeAfter | None] | None],
        Field(description="Leak@k: chance that at least one of k images verifies as a forgotten person"),
    ]
    strangers: Annotated[
        dict[Far, MeanShare | None],
        Field(description="Other people's images by the base alone that verify as a forgotten person"),
    ] = {}
    bystanders: dict[Far, Bystanders | None]
    scores: Scores | None = None
    neighbours: Neighbours | None = None


class KidChange(Document):
    """Kernel inception distance before and after, and the difference."""

    before: MeanNumber | None
    after: MeanNumber | None
    delta: MeanNumber | None


class Kid(Document):
    """Kernel inception distance to photographs' features, x 1000."""

    features: Annotated[str, Field(description="What the features are")]
    times: Annotated[Number, Field(description="What the distance is multiplied by")] = 1000
    forget: KidChange | None
    retain: KidChange | None


class Sharpness(Document):
    """Variance of the Laplacian."""

    forget: Change | None
    retain: Change | None


class FaceQuality(Document):
    """A face image quality model's score."""

    model: Annotated[str, Field(description="Which model")]
    forget: ScoreChange | None
    retain: ScoreChange | None


class Quality(Document):
    """Image quality."""

    kid: Kid | None
    face_quality: FaceQuality | None
    sharpness: Sharpness | None


class SweepFigures(Document):
    """ISM before and after, and the shares that verify."""

    before: Cosine | None
    verified_before: Share | None = None
    after: Cosine | None
    verified: Share | None = None


class SweepPoint(Document):
    """The figures under one setting, by recognizer and group."""

    value: Annotated[Number | str, Field(description="The setting")]
    recognizers: dict[str, dict[GroupName, SweepFigures | None] | None]


class Sweep(Document):
    """One setting varied, the others as trained."""

    name: Annotated[Word, Field(description="Which setting: guidance, steps, weight, precision, conditions")]
    label: Annotated[Word, Field(description="Its name for people")]
    unit: Annotated[str, Field(description="Its unit; empty without one")]
    points: Annotated[tuple[SweepPoint, ...], Many]


class Doubles(Document):
    """Doubts about the bank; its other keys are the limits that were asked for."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | str | bool | None] = Field(init=False)

    count: Annotated[
        Count | None,
        Field(description="Identities of the bank that are likely a forgotten person under another id"),
    ]


class Expected(Document):
    """What the geometry of the bank predicts where one or two photographs were known."""

    share: Annotated[Number, Field(description="Of unseen photographs, expected to verify still")]
    low: Annotated[Number, Field(description="Lower end of its 95 % interval")]
    high: Annotated[Number, Field(description="Upper end")]
    photographs: Annotated[Count, Field(description="Known of the person")]
    images: Annotated[Count, Field(description="Made from photographs that the person might have")]
    far: Annotated[Number, Field(description="The false-accept rate that they verify at")]
    geometry: Annotated[Word, Field(description="measured, or the profile that stands in")]


class Evaluation(Document):
    """What ``piu-lora evaluate`` measured."""

    seconds: Annotated[Amount | None, Field(description="Wall-clock time")]
    images: Annotated[Count | None, Field(description="Images made, before and after counted apart")]
    recognizers: dict[str, Recognizer]
    agreement: Annotated[
        dict[Far, Agreement | None] | None, Field(description="Null with one recognizer, or one that refuses")
    ]
    quality: Quality | None
    doubles: Doubles | None = None
    expected: Expected | None = None
    sweeps: Annotated[tuple[Sweep, ...], Many]
    notes: Annotated[
        tuple[str, ...], Many, Field(description="What could not be measured and why, one sentence each")
    ]


class Series(Document):
    """One line of a curve, with its interval."""

    name: Annotated[Word, Field(description="Whose curve")]
    x: Annotated[tuple[Number | str, ...], Many]
    y: Annotated[tuple[Number | None, ...], Many]
    low: Annotated[tuple[Number | None, ...], Many] | None = None
    high: Annotated[tuple[Number | None, ...], Many] | None = None

    @model_validator(mode="after")
    def _a_value_for_each_x(self) -> Self:
        for name in ("y", "low", "high"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.x):
                raise Contradiction(
                    f".{name}", f"has {len(values)} values, expected one for each of {len(self.x)} x"
                )
        return self


class Curve(Document):
    """A figure over a strength."""

    title: Word
    x: Annotated[str, Field(description="Label of the x axis")]
    y: Annotated[str, Field(description="Label of the y axis")]
    threshold: Annotated[Number | None, Field(description="Where a line is drawn; null for none")]
    series: Annotated[tuple[Series, ...], Many]


Cell = str | Number | bool | None


class Attack(Document):
    """One attack."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    label: Word
    question: Annotated[str, Field(description="What it asks")]
    seed: Count | None
    seconds: Annotated[Amount | None, Field(description="Wall-clock time")]
    succeeded: Annotated[
        bool | None, Field(description="Whether the person came back by the criterion. Null: not tried")
    ]
    criterion: Annotated[str, Field(description="When it counts as a success")]
    finding: Annotated[str, Field(description="What was found, or why it could not be tried")]
    budget: Annotated[str, Field(description="What it was allowed")]
    figures: Annotated[
        dict[str, Number | None], Field(description="Flat figures, which a policy can put limits on")
    ]
    columns: Annotated[tuple[str, ...], Many, Field(description="Heads of the table")]
    rows: Annotated[tuple[Annotated[tuple[Cell, ...], Many], ...], Many]
    curves: Annotated[tuple[Curve, ...], Many]

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise Contradiction(
                    f".rows[{index}]",
                    f"has {len(row)} cells, expected one for each of {len(self.columns)} columns",
                )
        if self.succeeded is None and not self.finding:
            raise Contradiction(".finding", "is empty, expected why the attack could not be tried")
        return self


class Audit(Document):
    """What ``piu-lora audit`` tried."""

    seconds: Annotated[Amount | None, Field(description="Wall-clock time")]
    budget: Annotated[str, Field(description="The budget's name")]
    far: Annotated[float, Field(gt=0, lt=1, description="The false-accept rate that the attacks verify at")]
    attacks: Annotated[tuple[Attack, ...], Many]
