"""The tables of a report, in words and numbers that Markdown and HTML share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from piu_lora.evidence.report.measures import (
    Agreement,
    Bystanders,
    Change,
    Ism,
    Landing,
    MeanCount,
    MeanNumber,
    MeanShare,
    ScoreChange,
    Verified,
)
from piu_lora.evidence.report.sections import Attack, Audit, Cell, Kid, KidChange, Quality, Recognizer
from piu_lora.evidence.report.wording import (
    NOT_MEASURED,
    arrow,
    far_text,
    number,
    outcome,
    seconds,
    with_interval,
)
from piu_lora.groups import GROUP_WORDS

__all__ = [
    "Table",
    "accuracy_table",
    "agreement_table",
    "attack_rows",
    "attack_table",
    "bystander_table",
    "groups_of",
    "leak_table",
    "likeness_table",
    "quality_table",
    "refusals",
    "stranger_table",
    "verification_table",
]

T = TypeVar("T")
Recognizers = Mapping[str, Recognizer]


@dataclass(frozen=True)
class Table:
    """Cells as text; the first ``words`` columns are words, the others figures."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 2


def _mean(part: MeanShare | MeanCount | MeanNumber | None) -> float | None:
    return None if part is None else part.mean


def _mean_with_interval(part: MeanShare | MeanCount | MeanNumber | None, digits: int = 3) -> str:
    return NOT_MEASURED if part is None else with_interval(part.mean, part.interval, digits)


def _change(verified: Verified | None) -> str:
    """Before and after, with the interval of after."""
    if verified is None or (_mean(verified.before) is None and _mean(verified.after) is None):
        return NOT_MEASURED
    return f"{number(_mean(verified.before), 2)} → {_mean_with_interval(verified.after, 2)}"


def groups_of(recognizers: Recognizers) -> list[str]:
    """The groups that anything is said of, in their order."""
    present = {str(group) for recognizer in recognizers.values() for group in recognizer.ism}
    return [group for group in GROUP_WORDS if group in present]


def likeness_table(recognizers: Recognizers) -> Table:
    """ISM by recognizer and group."""
    rows = [
        (name, GROUP_WORDS[group].label, *_likeness(recognizer, group, ism))
        for name, recognizer in recognizers.items()
        for group, ism in recognizer.ism.items()
    ]
    return Table(
        ("recognizer", "people", "ISM before", "ISM after", "after / before", "p", "images"), tuple(rows)
    )


def _likeness(recognizer: Recognizer, group: str, ism: Ism | None) -> tuple[str, ...]:
    if ism is None:
        return (NOT_MEASURED,) * 5
    p = ism.difference and ism.difference.p
    return (
        with_interval(ism.before, ism.before_interval, 2),
        with_interval(ism.after, ism.after_interval, 2),
        with_interval(ism.ratio, ism.ratio_interval, 2),
        number(p) if p is None or p >= 0.001 else "< 0.001",
        _images(recognizer, group, ism),
    )


def _images(recognizer: Recognizer, group: str, ism: Ism) -> str:
    faceless = {str(name): count for name, count in recognizer.no_face.items()}.get(group)
    if faceless is None or not (faceless.before or faceless.after):
        return number(ism.n)
    return f"{ism.n} (no face in {faceless.before} → {faceless.after})"


def accuracy_table(recognizers: Recognizers) -> Table:
    """Nearest-centroid accuracy."""
    heads = {"acc_u": "AccU", "acc_r": "AccR", "srk": "SRK"}
    rows = []
    for name, recognizer in recognizers.items():
        figures = (
            arrow(
                getattr(recognizer.before, key, None),
                getattr(recognizer.after, key, None),
                1 if key == "srk" else 2,
            )
            for key in heads
        )
        rows.append((name, recognizer.role, *figures))
    return Table(("recognizer", "role", *heads.values()), tuple(rows))


def verification_table(recognizers: Recognizers) -> Table:
    """1:1 verification by recognizer, rate and group."""
    groups, rows = groups_of(recognizers), []
    for name, recognizer in recognizers.items():
        for far, threshold in recognizer.thresholds.items():
            verified = {str(group): part for group, part in (recognizer.verified.get(far) or {}).items()}
            cells = (_change(verified.get(group)) for group in groups)
            rows.append((name, far_text(far), number(threshold.cosine), *cells))
    labels = (GROUP_WORDS[group].label for group in groups)
    return Table(("recognizer", "FAR", "threshold", *labels), tuple(rows))


def refusals(recognizers: Recognizers) -> list[tuple[str, str]]:
    """Why a recognizer cannot verify: its name (and the rate), and the reason."""
    reasons = []
    for name, recognizer in recognizers.items():
        if recognizer.references.refused:
            reasons.append((f"{name}, forgotten", recognizer.references.refused))
        reasons += [
            (f"{name}, FAR {far_text(far)}", level.refused)
            for far, level in recognizer.thresholds.items()
            if level.refused
        ]
    return reasons


def leak_table(recognizers: Recognizers) -> Table:
    """Leak@k by recognizer and rate."""
    tries = sorted(
        {
            int(k)
            for recognizer in recognizers.values()
            for leak in recognizer.leak.values()
            for k in leak or ()
        }
    )
    rows = []
    for name, recognizer in recognizers.items():
        for far, leak in recognizer.leak.items():
            shares = ((leak or {}).get(str(k)) for k in tries)
            cells = (arrow(share and share.before, share and share.after) for share in shares)
            rows.append((name, far_text(far), *cells))
    return Table(("recognizer", "FAR", *(f"Leak@{k}" for k in tries)), tuple(rows))


def bystander_table(recognizers: Recognizers) -> Table:
    """On whom the forgotten people's images land."""
    every = [
        (name, far, bystanders)
        for name, recognizer in recognizers.items()
        for far, bystanders in recognizer.bystanders.items()
    ]
    private = any(bystanders is not None and bystanders.landing for *_, bystanders in every)
    rows = tuple(
        (name, far_text(far), *_bystanders(bystanders), *((_landing(bystanders),) if private else ()))
        for name, far, bystanders in every
    )
    head = ("recognizer", "FAR", "by chance", "before", "after", *(("on one person",) if private else ()))
    return Table(head, rows)


def _bystanders(bystanders: Bystanders | None) -> tuple[str, ...]:
    if bystanders is None:
        return (NOT_MEASURED,) * 3
    counts = (_mean_with_interval(part, 2) for part in (bystanders.before, bystanders.after))
    return (number(bystanders.expected, 2), *counts)


def _landing(bystanders: Bystanders | None) -> str:
    landing: Landing | None = bystanders and bystanders.landing
    if landing is None:
        return NOT_MEASURED
    remark = {True: " (the anchor)", False: " (not the anchor)", None: ""}[landing.is_anchor]
    return arrow(landing.before, landing.after) + remark


def stranger_table(recognizers: Recognizers) -> Table:
    """Other people's images by the base alone that verify as a forgotten person: what the rate promises to be
    rare.
    """
    rows = [
        (name, far_text(far), _mean_with_interval(share))
        for name, recognizer in recognizers.items()
        for far, share in recognizer.strangers.items()
    ]
    return Table(("recognizer", "FAR", "verify as the forgotten"), tuple(rows))


def agreement_table(agreement: Mapping[str, Agreement]) -> Table:
    """How many images both, one or no recognizer verifies."""
    names = list(dict.fromkeys(name for counts in agreement.values() for name in counts.only))
    rows = []
    for far, counts in agreement.items():
        only = (counts.only.get(name) for name in names)
        cells = (counts.both, *only, counts.neither, counts.no_face)
        rows.append((far_text(far), *(number(count) for count in cells)))
    return Table(("FAR", "both", *(f"only {name}" for name in names), "neither", "no face"), tuple(rows), 1)


def quality_table(quality: Quality | None) -> Table:
    """KID, sharpness and face quality."""
    kid: Kid | None = quality and quality.kid
    sharpness, faces = quality and quality.sharpness, quality and quality.face_quality
    rows = [
        *(
            ("KID \u00d7 1000, lower is better", people, *_kid(change))
            for people, change in _sides(kid and kid.forget, kid and kid.retain)
        ),
        *(
            ("sharpness (variance of the Laplacian)", people, *_times(change, 4))
            for people, change in _sides(sharpness and sharpness.forget, sharpness and sharpness.retain)
        ),
        *(
            ("face quality", people, *_times(change, 2))
            for people, change in _sides(faces and faces.forget, faces and faces.retain)
        ),
    ]
    return Table(("measure", "images of", "before", "after", "change"), tuple(rows))


def _sides(forget: T, retain: T) -> tuple[tuple[str, T], tuple[str, T]]:
    return ("forgotten", forget), ("everybody else", retain)


def _kid(change: KidChange | None) -> Iterable[str]:
    parts = (None,) * 3 if change is None else (change.before, change.after, change.delta)
    return (_mean_with_interval(part, 2) for part in parts)


def _times(change: Change | ScoreChange | None, digits: int) -> tuple[str, str, str]:
    if change is None:
        return (NOT_MEASURED,) * 3
    ratio = (
        NOT_MEASURED
        if change.ratio is None
        else f"\u00d7 {with_interval(change.ratio, change.ratio_interval, 2)}"
    )
    return number(change.before, digits), number(change.after, digits), ratio


def attack_table(audit: Audit) -> Table:
    """Every attack with its budget and how it ended."""
    rows = [
        (attack.label, outcome(attack)[1], attack.budget, seconds(attack.seconds)) for attack in audit.attacks
    ]
    return Table(("attack", "outcome", "budget", "time"), tuple(rows), 3)


def attack_rows(attack: Attack) -> Table:
    """An attack's own table; its columns of figures begin at the first that is no text."""
    first = attack.rows[0] if attack.rows else ()
    words = next((index for index, cell in enumerate(first) if not isinstance(cell, str)), 1)
    return Table(attack.columns, tuple(tuple(map(_text, row)) for row in attack.rows), words)


def _text(cell: Cell) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return cell if isinstance(cell, str) else number(cell)
