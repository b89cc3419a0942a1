"""Settings that are properties of a recognizer: what they are for a given geometry.

A number that was chosen on one recognizer is wrong on another: two photographs of one person have cosine 0.93
by the embedded one and 0.60 by a real one. So these settings are ``auto`` by default and follow from the
bank's geometry here; every one can be set by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass

from piu_lora.identity.geometry import Geometry
from piu_lora.identity.profiles import GENERIC

__all__ = ["AUTO", "CONSTANTS", "Constant", "Counts", "double_cosine", "value_of"]

AUTO = "auto"
_COMMON = 1e-3  # the false-accept rate that reports verify at
_LINKED = 1e-4  # a person's few photographs make few pairs
_FALSE_ALARM = 0.05  # pairs of strangers of a bank that are taken for one person
_OUTSIDE = 0.02  # share of a person's photographs that may lie where others are retained
_NARROWEST = 0.1  # of a band of neighbours


@dataclass(frozen=True)
class Counts:
    """What a constant may depend on, beside the geometry.

    Attributes:
        photographs: known of the person to forget; of several people, of whom the fewest are known.
        people: in the bank.
    """

    photographs: int = 1
    people: int = 1000


Rule = Callable[[Geometry, Counts], float]


@dataclass(frozen=True)
class Constant:
    """A setting that follows from the geometry, and why it is what it is, in a clause."""

    rule: Rule
    why: str


def same_person(geometry: Geometry, counts: Counts) -> float:
    """At most one stranger of the bank passes for the person: a rate of 1 / people, and 1e-3 at most."""
    return geometry.cosine_at(min(1 / counts.people, _COMMON), counts.photographs)


def double_cosine(geometry: Geometry, people: int, photographs: int = 1) -> float:
    """The cosine of two centroids that a pair of strangers reaches in one of twenty banks of so many people.

    Args:
        photographs: of each of them.
    """
    pairs = people * (people - 1) / 2
    return min(geometry.cosine_at(min(_FALSE_ALARM / max(pairs, 1.0), _COMMON), photographs), 0.95)


def _own_reach(geometry: Geometry, counts: Counts) -> float:
    return geometry.reach(counts.photographs).quantile(_OUTSIDE)


def _likeness_of_anybody(geometry: Geometry, counts: Counts) -> float:
    return geometry.impostors.mean if geometry.impostors is not None else 0.0


def _neighbour_high(geometry: Geometry, counts: Counts) -> float:
    return max(_own_reach(geometry, counts), _likeness_of_anybody(geometry, counts) + _NARROWEST)


def _scatter(geometry: Geometry, counts: Counts) -> float:
    return geometry.impostors.scatter if geometry.impostors is not None else _scatter(GENERIC, counts)


_LOW = Constant(_likeness_of_anybody, "where strangers lie on average")
_HIGH = Constant(_neighbour_high, "all but 2 % of the person's photographs lie above")
_SCATTER = Constant(_scatter, "how far one person's photographs scatter (SD) seen from another person")

CONSTANTS: dict[str, Constant] = {
    "faces.linked": Constant(
        lambda geometry, counts: geometry.cosine_at(_LINKED), "1 pair of strangers in 10,000 reaches it"
    ),
    "split.same_person": Constant(
        same_person, "one stranger of the bank, or 1 in 1,000 of a small bank, reaches it"
    ),
    "anchor.margin": _SCATTER,
    "anchor.band": _SCATTER,
    "retain.neighbour_low": _LOW,
    "retain.neighbour_high": _HIGH,
    "distil.neighbour_low": _LOW,
    "distil.neighbour_high": _HIGH,
    "distil.unseen_low": Constant(_own_reach, "all but 2 % of the person's photographs lie above"),
    "decoys.cosine": Constant(
        lambda geometry, counts: geometry.cosine_at(_COMMON), "the threshold of verification at 1 in 1,000"
    ),
}


def value_of(
    name: str,
    value: float | str,
    geometry: Callable[[], Geometry] = lambda: GENERIC,
    counts: Counts = Counts(),
) -> float:
    """The number of a setting in ``CONSTANTS``: ``value`` itself, or what ``auto`` stands for.

    Args:
        geometry: asked for ``auto`` only; by default the profile, for callers who know no bank.
    """
    if not isinstance(value, str):
        return value
    # In few dimensions strangers are alike.
    return round(min(CONSTANTS[name].rule(geometry(), counts), 0.99), 2)
