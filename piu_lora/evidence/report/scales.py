"""From values to places: the axes of a chart."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Scale", "between", "categories", "linear", "logarithmic", "spread"]


@dataclass(frozen=True)
class Scale:
    """Values low to high, mapped to 0 to 1; ticks are values with their labels."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    logs: bool = False
    names: tuple[str, ...] = ()

    def place(self, value: float | str) -> float:
        """Where a value lies, 0 to 1 from low to high; what lies outside is held at the edge."""
        number = float(self.names.index(value)) if isinstance(value, str) else float(value)
        low, high = self.low, self.high
        if self.logs:
            number, low, high = math.log(number), math.log(low), math.log(high)
        return min(max((number - low) / (high - low), 0.0), 1.0)


def linear(values: Iterable[float | None], include: Sequence[float] = (), count: int = 5) -> Scale:
    """An axis over values, its ends on round numbers."""
    found = [value for value in (*values, *include) if value is not None] or [0.0, 1.0]
    low, high = min(found), max(found)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    step = _round_step((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple((place * step, _label(place * step, step)) for place in range(first, last + 1))
    return Scale(first * step, last * step, ticks)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(step for step in (1, 2, 2.5, 5, 10) if rough <= step * power * 1.0001)


def _label(value: float, step: float) -> str:
    digits = max(-math.floor(math.log10(step) + 1e-9), 0)
    digits += not math.isclose(step * 10**digits, round(step * 10**digits))
    return f"{value + 0.0:,.{digits}f}"


def logarithmic(values: Sequence[float]) -> Scale:
    """An axis over positive values, a tick at each of them."""
    found = sorted(set(values))
    low, high = (found[0], found[-1]) if found[0] < found[-1] else (found[0] / 2, found[0] * 2)
    return Scale(low, high, tuple((value, f"{value:g}") for value in found), logs=True)


def categories(names: Sequence[str]) -> Scale:
    """An axis of names in their order, half a step of room at either end."""
    found = tuple(dict.fromkeys(names))
    return Scale(
        -0.5, len(found) - 0.5, tuple((float(place), name) for place, name in enumerate(found)), names=found
    )


def between(low: float, high: float, count: int = 5) -> Scale:
    """An axis from low to high exactly, with round ticks inside."""
    if not low < high:
        return linear((low, high), count=count)
    found = linear((low, high), count=count)
    return Scale(low, high, tuple(tick for tick in found.ticks if low - 1e-9 <= tick[0] <= high + 1e-9))


def spread(places: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Middles of labels moved apart so that none overlaps: in order, from low to high where there is room,
    near their own places.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = [0.0] * len(places)
    edge = low
    for index in order:
        moved[index] = max(places[index], edge + heights[index] / 2)
        edge = moved[index] + heights[index] / 2
    edge = high
    for index in reversed(order):
        moved[index] = min(moved[index], edge - heights[index] / 2)
        edge = moved[index] - heights[index] / 2
    return moved
