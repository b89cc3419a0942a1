"""The words and numbers of a report, the same in every form of it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from piu_lora.evidence.report.sections import Attack

__all__ = ["NOT_MEASURED", "arrow", "far_text", "number", "outcome", "seconds", "with_interval"]

NOT_MEASURED = "not measured"


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people: whole numbers as they are, others with so many decimals, fewer for large ones; a
    null as what it is.
    """
    if value is None:
        return NOT_MEASURED
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if 0 < abs(value) < 0.5 * 10**-digits:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.{max(digits - (abs(value) >= 10) - (abs(value) >= 100), 0)}f}"


def with_interval(value: float | None, interval: Sequence[float] | None, digits: int = 3) -> str:
    """A figure and its 95 % interval."""
    if value is None or interval is None:
        return number(value, digits)
    return f"{number(value, digits)} [{number(interval[0], digits)}, {number(interval[1], digits)}]"


def arrow(before: float | None, after: float | None, digits: int = 2) -> str:
    """Before and after in one cell."""
    return (
        NOT_MEASURED
        if before is None and after is None
        else f"{number(before, digits)} → {number(after, digits)}"
    )


def far_text(far: str | float) -> str:
    """A false-accept rate as people write it: 1e-3."""
    value = float(far)
    power = round(math.log10(value))
    return f"1e{power}" if math.isclose(value, 10.0**power) else f"{value:g}"


def seconds(value: float | None) -> str:
    """A duration."""
    if value is None:
        return NOT_MEASURED
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def outcome(attack: "Attack") -> tuple[str, str]:
    """How an attack ended: a word for the colour, and one for people."""
    if attack.succeeded is None:
        return "unknown", "not tried"
    return ("bad", "attack succeeded") if attack.succeeded else ("good", "held")
