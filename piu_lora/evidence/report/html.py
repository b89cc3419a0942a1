"""A report as one HTML file that needs no network and no script: pictures and charts are inside."""

import base64
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from piu_lora.evidence.report import tables, wording

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

__all__ = ["Pair", "Pictures", "report_html"]


@dataclass(frozen=True)
class Pair:
    """One condition and seed, before and after, as PNG files."""

    label: str
    before: bytes
    after: bytes


@dataclass(frozen=True)
class Pictures:
    """What a private report shows of the images.

    Attributes:
        sheet: a PNG of many images, before on the left and after on the right (``before_after``).
        pairs: a few large ones.
    """

    sheet: bytes | None = None
    pairs: tuple[Pair, ...] = ()


def report_html(document: dict[str, Any], pictures: Pictures | None = None) -> str:
    """The page: verdict, pictures, figures, attacks, environment.

    Args:
        document: a valid report (``validate``).
        pictures: shown unless the document is public, which never shows one.
    """
    shown = Pictures() if document["public"] or pictures is None else pictures
    evaluation, audit = document.get("evaluation"), document.get("audit")
    verdict = document["verdict"]
    return _template().render(
        css=_text("report.css"),
        document=document,
        adapter=document["adapter"],
        verdict=verdict,
        lines=sorted(verdict["lines"], key=lambda line: line["passed"]) if verdict else [],
        sheet=_data(shown.sheet),
        pairs=[(pair.label, _data(pair.before), _data(pair.after)) for pair in shown.pairs],
        evaluation=evaluation and _evaluation(evaluation, audit),
        audit=audit and _audit(audit),
        settings=json.dumps(document["settings"], indent=2, sort_keys=True),
    )


@functools.cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    world = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    world.filters |= {"number": wording.number, "far": wording.far_text, "seconds": wording.seconds}
    return world.from_string(_text("report.html.j2"))


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _data(png: bytes | None) -> str | None:
    return None if png is None else f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _evaluation(evaluation: dict[str, Any], audit: dict[str, Any] | None) -> dict[str, Any]:
    """The evaluation's charts and tables, in the order of the page."""
    from piu_lora.evidence.report import panels

    seen = evaluation["recognizers"]
    far = _middle(seen, audit)
    agreement = {rate: found for rate, found in (evaluation["agreement"] or {}).items() if found is not None}
    return {
        "far": far,
        "images": evaluation["images"],
        "seconds": evaluation["seconds"],
        "notes": evaluation["notes"],
        "shapes": list(zip(seen, panels.shapes(len(seen)), strict=True)),
        "plane": panels.plane(seen),
        "changes": _drawn((name, panels.change_chart(name, one, far)) for name, one in seen.items()),
        "likeness": tables.likeness_table(seen),
        "accuracy": tables.accuracy_table(seen),
        "scores": _drawn((name, panels.score_chart(name, one)) for name, one in seen.items()),
        "verification": tables.verification_table(seen),
        "leaks": _drawn((name, panels.leak_chart(name, far, one["leak"].get(far))) for name, one in seen.items()) if far else [],
        "leak": tables.leak_table(seen),
        "bystanders": tables.bystander_table(seen),
        "strangers": tables.stranger_table(seen),
        "refusals": tables.refusals(seen),
        "bars": [(rate, panels.agreement_bar(rate, found)) for rate, found in agreement.items()],
        "agreement": tables.agreement_table(agreement),
        "agreement_parts": panels.agreement_parts(next(iter(agreement.values()))) if agreement else [],
        "maps": [
            (name, [(when, panels.neighbour_map(f"{name}, {when}", found["labels"], found[when])) for when in ("before", "after")])
            for name, one in seen.items() if (found := one.get("neighbours"))
        ],
        "quality": tables.quality_table(evaluation["quality"]),
        "kid_features": ((evaluation["quality"] or {}).get("kid") or {}).get("features"),
        "quality_model": ((evaluation["quality"] or {}).get("face_quality") or {}).get("model"),
        "doubles": (evaluation.get("doubles") or {}).get("count"),
        "sweeps": [(sweep, _sweep(sweep, seen, far)) for sweep in evaluation["sweeps"]],
    }  # fmt: skip


def _sweep(sweep: dict[str, Any], seen: dict[str, Any], far: str | None) -> "list[tuple[str, Markup]]":
    from piu_lora.evidence.report.panels import sweep_chart

    return _drawn((name, sweep_chart(sweep, name, _level(one, far), far)) for name, one in seen.items())


def _middle(seen: dict[str, Any], audit: dict[str, Any] | None) -> str | None:
    """The rate that single-threshold charts use: the audit's, else the strictest one that a recognizer has a
    threshold for, up to 1e-3.
    """
    known = sorted(
        {
            float(far)
            for one in seen.values()
            for far, found in one["thresholds"].items()
            if found["cosine"] is not None
        }
    )
    names = {float(far): far for one in seen.values() for far in one["thresholds"]}
    wanted = audit["far"] if audit else 1e-3
    return names[min(known, key=lambda far: (abs(far / wanted - 1), far))] if known else None


def _level(one: dict[str, Any], far: str | None) -> float | None:
    found: float | None = one["thresholds"].get(far, {}).get("cosine") if far else None
    return found


def _drawn(charts: "Iterator[tuple[str, Markup | None]]") -> "list[tuple[str, Markup]]":
    return [(name, chart) for name, chart in charts if chart is not None]


def _audit(audit: dict[str, Any]) -> dict[str, Any]:
    from piu_lora.evidence.report.curves import curve_chart

    cards = []
    for attack in audit["attacks"]:
        words = (
            next((place for place, cell in enumerate(attack["rows"][0]) if not isinstance(cell, str)), 1)
            if attack["rows"]
            else 1
        )
        rows = tuple(tuple(_cell(cell) for cell in row) for row in attack["rows"])
        cards.append(
            {
                **attack,
                "mood": wording.outcome(attack)[0],
                "word": wording.outcome(attack)[1],
                "charts": [(curve["title"], *curve_chart(curve)) for curve in attack["curves"]],
                "table": tables.Table(tuple(attack["columns"]), rows, words),
            }
        )
    return {
        "seconds": audit["seconds"],
        "budget": audit["budget"],
        "far": audit["far"],
        "table": tables.attack_table(audit),
        "attacks": cards,
    }


def _cell(value: str | float | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else wording.number(value)
