"""The figures of a report: means with intervals, before and after, by group and by false-accept rate."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from piu_lora.documents import Amount, Contradiction, Cosine, Count, Document, Many, Number, Share, Word

__all__ = [
    "Accuracy",
    "Agreement",
    "BeforeAfter",
    "Bystanders",
    "Change",
    "Difference",
    "FacelessCount",
    "Far",
    "Interval",
    "Ism",
    "Landing",
    "MeanCount",
    "MeanNumber",
    "MeanShare",
    "Neighbours",
    "Recognised",
    "ScoreChange",
    "Scores",
    "Threshold",
    "Tries",
    "Verified",
]


def _low_first(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"is {list(ends)}, expected the low end first")
    return ends


Far = Annotated[
    str, StringConstraints(pattern=r"^0\.[0-9]*[1-9]$"), Field(description="A false-accept rate, e.g. 0.001")
]
Tries = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*$"), Field(description="Images tried")]
# 95 %, the low end first.
Interval = Annotated[tuple[Number, Number], Many, AfterValidator(_low_first)]
ShareInterval = Annotated[tuple[Share, Share], Many, AfterValidator(_low_first)]


class MeanShare(Document):
    """A mean share over images."""

    mean: Share | None
    interval: ShareInterval | None
    n: Annotated[Count, Field(description="Images counted")]


class MeanCount(Document):
    """A mean count for each image."""

    mean: Amount | None
    interval: Interval | None
    n: Annotated[Count, Field(description="Images counted")] = 0


class MeanNumber(Document):
    """A mean and its interval."""

    mean: Number | None
    interval: Interval | None


class Difference(Document):
    """Paired difference, after minus before, over the same seeds."""

    mean: Number | None
    interval: Interval | None
    p: Annotated[Share | None, Field(description="Two-sided; null where it could not be computed")]


class Change(Document):
    """A measure of the images, base alone and adapter on."""

    before: Amount | None
    after: Amount | None
    ratio: Annotated[Amount | None, Field(description="After / before")]
    ratio_interval: Interval | None


class ScoreChange(Document):
    """A model's score of the images, on a scale of its own, base alone and adapter on."""

    before: Number | None
    after: Number | None
    ratio: Annotated[Number | None, Field(description="After / before")]
    ratio_interval: Interval | None


class BeforeAfter(Document):
    """A share, base alone and adapter on."""

    before: Share | None
    after: Share | None


class Ism(Document):
    """Identity similarity of a group's images: mean cosine with the reference, base alone and adapter on."""

    before: Cosine | None
    before_interval: Interval | None
    after: Cosine | None
    after_interval: Interval | None
    ratio: Annotated[Number | None, Field(description="After / before; null where before is 0")]
    ratio_interval: Interval | None
    difference: Difference | None = None
    n: Annotated[Count, Field(description="Images")]
    people: Annotated[Count, Field(description="People they show")]


class Recognised(Document):
    """Share of images whose nearest centroid of the bank is the person's own."""

    before: MeanShare | None
    after: MeanShare | None


class FacelessCount(Document):
    """Images without a face; they count as cosine 0 and as nobody."""

    before: Count
    after: Count
    n: Annotated[Count, Field(description="Images looked at")] = 0


class Threshold(Document):
    """A calibrated verification threshold, or why there is none."""

    cosine: Annotated[Cosine | None, Field(description="Null where refused")]
    pairs: Annotated[Count | None, Field(description="Impostor pairs it rests on")]
    refused: Annotated[str, Field(description="Why there is no threshold; empty where there is one")]

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.cosine is None) != bool(self.refused):
            raise Contradiction("", "must have either a cosine or, in refused, why there is none")
        return self


class Verified(Document):
    """Share of a group's images that verify as the person they were made for."""

    before: MeanShare | None
    after: MeanShare | None
    difference: Difference | None = None
    people: Annotated[
        BeforeAfter | None, Field(description="Share of the people of whom half of the images verify")
    ] = None


class Accuracy(Document):
    """Nearest-centroid accuracy."""

    acc_u: Share | None
    acc_r: Share | None
    srk: Annotated[Amount | None, Field(description="AccR / (AccU + 0.01)")]


class Landing(Document):
    """Private. Largest share of the forgotten people's images that verify as one and the same real person."""

    before: Share | None
    after: Share | None
    is_anchor: Annotated[bool | None, Field(description="Whether that person is the anchor; null: unknown")]


class Bystanders(Document):
    """Other real people that an image of the forgotten verifies as."""

    expected: Annotated[Amount | None, Field(description="FAR times people compared with: chance alone")]
    before: MeanCount | None
    after: MeanCount | None
    landing: Landing | None = None


Density = Annotated[tuple[Amount, ...], Many]


class Scores(Document):
    """Private. Densities of the cosine with the reference; null where nothing was measured."""

    bins: Annotated[tuple[Number, ...], Many, Field(min_length=2, description="Edges of the bins, cosine")]
    impostor: Density | None
    forget_before: Density | None
    forget_after: Density | None
    retained_after: Density | None

    @model_validator(mode="after")
    def _a_value_for_each_bin(self) -> Self:
        bins = len(self.bins) - 1
        for name, density in self:
            if name != "bins" and density is not None and len(density) != bins:
                raise Contradiction(
                    f".{name}", f"has {len(density)} values, expected one for each of {bins} bins"
                )
        return self


Row = Annotated[tuple[Cosine | None, ...], Many]


class Neighbours(Document):
    """Private. Mean cosine of the images made for a row with the reference of a column."""

    labels: Annotated[tuple[Word, ...], Many, Field(description="Of rows and columns; nobody's own name")]
    before: Annotated[tuple[Row, ...], Many]
    after: Annotated[tuple[Row, ...], Many]

    @model_validator(mode="after")
    def _square(self) -> Self:
        size = len(self.labels)
        for name in ("before", "after"):
            rows: tuple[Any, ...] = getattr(self, name)
            if len(rows) != size or any(len(row) != size for row in rows):
                raise Contradiction(f".{name}", f"is not {size} by {size}, as its labels are")
        return self


class Agreement(Document):
    """The forgotten people's images with the adapter on, counted by who verifies them."""

    both: Annotated[Count, Field(description="Both recognizers")]
    neither: Annotated[Count, Field(description="Neither")]
    no_face: Annotated[Count, Field(description="Images without a face")]
    only: Annotated[dict[str, Count], Field(description="This recognizer alone")]
