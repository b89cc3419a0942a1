"""A report as one HTML file that needs no network and no script: pictures and charts are inside."""

import base64
import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from piu_lora.evidence.report import tables, wording
from piu_lora.evidence.report.answers import MARKS, answers_of, mood_of, verdict_word
from piu_lora.evidence.report.document import Report
from piu_lora.evidence.report.sections import Audit, Evaluation, Recognizer
from piu_lora.groups import GROUP_WORDS
from piu_lora.palette import page_variables

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

__all__ = ["Pictures", "report_html"]


@dataclass(frozen=True)
class Pictures:
    """What a private report shows of the images.

    Attributes:
        sheet: a PNG of many images, before on the left and after on the right (``before_after``).
    """

    sheet: bytes | None = None


def report_html(report: Report, pictures: Pictures | None = None) -> str:
    """The page: verdict, pictures, figures, attacks, environment.

    Args:
        pictures: shown unless the report is public, which never shows one.
    """
    shown = Pictures() if report.public or pictures is None else pictures
    evaluation, audit, verdict = report.evaluation, report.audit, report.verdict
    return _template().render(
        css=page_variables() + _text("report.css"),
        report=report,
        adapter=report.adapter,
        verdict=verdict,
        answers=answers_of(verdict),
        mood=mood_of(verdict),
        word=verdict_word(verdict),
        marks=MARKS,
        sheet=_data(shown.sheet),
        evaluation=evaluation and _evaluation(evaluation, audit),
        audit=audit and _audit(audit),
        settings=json.dumps(report.settings, indent=2, sort_keys=True),
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


def _evaluation(evaluation: Evaluation, audit: Audit | None) -> dict[str, Any]:
    """The evaluation's charts and tables, in the order of the page."""
    from piu_lora.evidence.report import maps, panels

    recognizers, quality = evaluation.recognizers, evaluation.quality
    far = _rate_of_charts(recognizers, audit)
    agreement = {rate: counts for rate, counts in (evaluation.agreement or {}).items() if counts is not None}
    return {
        "far": far,
        "section": evaluation,
        "groups": [(group, GROUP_WORDS[group].label) for group in tables.groups_of(recognizers)],
        "shapes": list(zip(recognizers, panels.shapes(len(recognizers)), strict=True)),
        "plane": panels.plane(recognizers),
        "changes": _drawn(
            (name, panels.change_chart(name, scores, far)) for name, scores in recognizers.items()
        ),
        "likeness": tables.likeness_table(recognizers),
        "accuracy": tables.accuracy_table(recognizers),
        "scores": _drawn((name, panels.score_chart(name, scores)) for name, scores in recognizers.items()),
        "verification": tables.verification_table(recognizers),
        "leaks": _leaks(recognizers, far),
        "leak": tables.leak_table(recognizers),
        "bystanders": tables.bystander_table(recognizers),
        "strangers": tables.stranger_table(recognizers),
        "refusals": tables.refusals(recognizers),
        "bars": [(rate, maps.agreement_bar(rate, counts)) for rate, counts in agreement.items()],
        "agreement": tables.agreement_table(agreement),
        "agreement_parts": maps.agreement_parts(next(iter(agreement.values()))) if agreement else [],
        "maps": _maps(recognizers),
        "quality": tables.quality_table(quality),
        "kid_features": quality and quality.kid and quality.kid.features,
        "quality_model": quality and quality.face_quality and quality.face_quality.model,
        "doubles": evaluation.doubles and evaluation.doubles.count,
        "sweeps": _sweeps(evaluation, far),
    }


def _leaks(recognizers: dict[str, Recognizer], far: str | None) -> "list[tuple[str, Markup]]":
    from piu_lora.evidence.report.panels import leak_chart

    if far is None:
        return []
    return _drawn((name, leak_chart(name, far, scores.leak.get(far))) for name, scores in recognizers.items())


def _maps(recognizers: dict[str, Recognizer]) -> "list[tuple[str, list[tuple[str, Markup]]]]":
    from piu_lora.evidence.report.maps import neighbour_map

    return [
        (
            name,
            [
                (when, neighbour_map(f"{name}, {when}", neighbours.labels, values))
                for when, values in (("before", neighbours.before), ("after", neighbours.after))
            ],
        )
        for name, recognizer in recognizers.items()
        if (neighbours := recognizer.neighbours) is not None
    ]


def _sweeps(evaluation: Evaluation, far: str | None) -> "list[tuple[str, list[tuple[str, Markup]]]]":
    from piu_lora.evidence.report.panels import sweep_chart

    return [
        (
            sweep.label,
            _drawn(
                (name, sweep_chart(sweep, name, _level(recognizer, far), far))
                for name, recognizer in evaluation.recognizers.items()
            ),
        )
        for sweep in evaluation.sweeps
    ]


def _rate_of_charts(recognizers: dict[str, Recognizer], audit: Audit | None) -> str | None:
    """The rate that single-threshold charts use: the audit's, else the strictest one that a recognizer has a
    threshold for, up to 1e-3.
    """
    calibrated = {
        float(far): far
        for recognizer in recognizers.values()
        for far, threshold in recognizer.thresholds.items()
        if threshold.cosine is not None
    }
    limit = audit.far if audit else 1e-3
    return calibrated[min(calibrated, key=lambda far: (abs(far / limit - 1), far))] if calibrated else None


def _level(recognizer: Recognizer, far: str | None) -> float | None:
    return recognizer.thresholds[far].cosine if far in recognizer.thresholds else None


def _drawn(charts: "Iterator[tuple[str, Markup | None]]") -> "list[tuple[str, Markup]]":
    return [(name, chart) for name, chart in charts if chart is not None]


def _audit(audit: Audit) -> dict[str, Any]:
    from piu_lora.evidence.report.curves import curve_chart

    cards = [
        {
            "attack": attack,
            "outcome": wording.outcome(attack),
            "charts": [(curve.title, *curve_chart(curve)) for curve in attack.curves],
            "table": tables.attack_rows(attack),
        }
        for attack in audit.attacks
    ]
    return {"section": audit, "table": tables.attack_table(audit), "cards": cards}
