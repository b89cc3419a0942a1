"""Where an arena's methods stand on a plane: forgetting across, what others keep upwards."""

import cmath
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piu_lora.evidence.comparison import Row

__all__ = ["Plane", "Spot", "plane"]

WIDTH, HEIGHT = 420.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 12.0, 12.0, 34.0
_READABLE, _PUSHES = 17.0, 30  # units from mark to mark


@dataclass(frozen=True)
class Spot:
    """A contender's mark, in the units of the picture, with the ends of its intervals.

    Attributes:
        number: of the contender in the arena's table.
        kind: ``ours``, ``baseline`` or ``untouched``.
        x, y: where it stands.
        mark: where its number is drawn; beside it where others stand too near.
    """

    number: int
    variant: str
    kind: str
    x: float
    y: float
    mark: tuple[float, float]
    wide: tuple[float, float]
    tall: tuple[float, float]
    words: str


@dataclass(frozen=True)
class Plane:
    """One picture.

    Attributes:
        curves: SVG points of every method that is there in several strengths.
        across, upwards: ticks, as positions and what they say.
    """

    spots: tuple[Spot, ...]
    curves: tuple[str, ...]
    across: tuple[tuple[float, str], ...]
    upwards: tuple[tuple[float, str], ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = _LEFT
    bottom: float = HEIGHT - _BOTTOM


def plane(rows: Sequence["Row"], group: str) -> Plane:
    """Forgetting (ISM after / before) against what a group keeps of its own.

    Args:
        rows: of one recognizer, in the order of their numbers; one without a figure has no mark.
        group: of the retained people.
    """
    placed = [
        (number, row, row.figures["forget"], row.figures[group]) for number, row in enumerate(rows, start=1)
    ]
    known = [(number, row, x, y) for number, row, x, y in placed if x is not None and y is not None]
    if not known:
        return Plane((), (), (), ())
    across = _Scale([x[0] for *_, x, _ in known], _LEFT, WIDTH - _RIGHT)
    upwards = _Scale([y[0] for *_, y in known], HEIGHT - _BOTTOM, _TOP)
    marks = _apart([(across(x[0]), upwards(y[0])) for *_, x, y in known])
    spots = tuple(
        Spot(
            number,
            row.variant,
            _kind(row.variant),
            across(x[0]),
            upwards(y[0]),
            mark,
            (across(x[1]), across(x[2])),
            (upwards(y[1]), upwards(y[2])),
            f"forgotten {x[0]:.2f} of before, others {y[0]:.2f}, made in {row.seconds:.0f} s",
        )
        for (number, row, x, y), mark in zip(known, marks, strict=True)
    )
    return Plane(spots, _curves(spots), across.ticks(), upwards.ticks())


def _apart(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points pushed off each other until all of them can be read, or nearly so."""
    marks = [complex(*place) for place in places]
    for _ in range(_PUSHES):
        for first, second in itertools.combinations(range(len(marks)), 2):
            gap = marks[second] - marks[first]
            missing = _READABLE - abs(gap)
            if missing > 0:
                # Points on each other part in some direction of their own.
                way = gap / abs(gap) if gap else cmath.rect(1, first + second)
                marks[first] -= way * missing / 2
                marks[second] += way * missing / 2
    return [(mark.real, mark.imag) for mark in marks]


def _kind(variant: str) -> str:
    from piu_lora.jobs.arena.contender import UNTOUCHED
    from piu_lora.unlearn.baselines import BASELINES

    method = variant.split()[0]
    return "untouched" if method == UNTOUCHED else "baseline" if method in BASELINES else "ours"


def _curves(spots: Sequence[Spot]) -> tuple[str, ...]:
    methods: dict[str, list[Spot]] = {}
    for spot in spots:
        methods.setdefault(spot.variant.split()[0], []).append(spot)
    return tuple(
        " ".join(f"{spot.x:.1f},{spot.y:.1f}" for spot in sorted(members, key=lambda spot: spot.x))
        for members in methods.values()
        if len(members) > 1
    )


class _Scale:
    """From figures to positions, 1 included: what is untouched stands there."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min([*values, 1.0]), max([*values, 1.0])
        margin = 0.07 * ((high - low) or 1.0)
        self._low, self._high = low - margin, high + margin
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return self._start + min(max(share, 0.0), 1.0) * (self._end - self._start)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Round figures, about five."""
        step = 0.05
        while (self._high - self._low) / step > 6:
            step *= 2
        first = math.ceil(self._low / step)
        return tuple(
            (self(number * step), f"{number * step:.2f}")
            for number in range(first, math.floor(self._high / step) + 1)
        )
