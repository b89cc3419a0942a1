"""The studio's HTML: a template for each part of a page, with the words and marks of the report."""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from piu_lora.studio.faces import data_uri

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["curve", "render"]


def render(template: str, **values: Any) -> str:
    """One part of a page; every value is escaped."""
    return _environment().get_template(f"{template}.html.j2").render(**values).strip()


def curve(losses: Sequence[float], width: float = 300, height: float = 80) -> str:
    """The points of a loss curve as SVG has them, on a logarithmic scale; empty for fewer than two."""
    if len(losses) < 2:
        return ""
    values = [math.log(max(loss, 1e-12)) for loss in losses]
    low, span = min(values), (max(values) - min(values)) or 1.0
    return " ".join(
        f"{width * index / (len(values) - 1):.1f},{4 + (height - 8) * (1 - (value - low) / span):.1f}"
        for index, value in enumerate(values)
    )


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    world = Environment(
        loader=PackageLoader("piu_lora.studio"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    world.filters |= {
        "uri": data_uri,
        "number": lambda value: _wording().number(value),
        "seconds": lambda value: _wording().seconds(value),
        "answers": lambda verdict: _answers().answers_of(verdict),
        "verdict_word": lambda verdict: _answers().verdict_word(verdict),
        "mark": lambda mood: _answers().MARKS[mood],
    }
    return world


# Both lie beside heavier things, which the first page does not wait for.
def _wording() -> Any:
    from piu_lora.evidence.report import wording

    return wording


def _answers() -> Any:
    from piu_lora.evidence.report import answers

    return answers
