"""The tables of a report, in words and numbers that Markdown and HTML share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from piu_lora.evidence.report.wording import (
    GROUP_WORDS,
    NOT_MEASURED,
    arrow,
    far_text,
    number,
    outcome,
    seconds,
    with_interval,
)

__all__ = [
    "Table", "accuracy_table", "agreement_table", "attack_table", "bystander_table", "leak_table", "likeness_table", "quality_table",
    "refusals", "stranger_table", "verification_table",
]  # fmt: skip

Seen = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Cells as text; the first ``words`` columns are words, the others figures."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 2


def _share(found: Seen | None) -> float | None:
    return None if found is None else found["mean"]


def _change(found: Seen | None, digits: int = 2) -> str:
    """Before and after, with the interval of after."""
    if found is None or (_share(found["before"]) is None and _share(found["after"]) is None):
        return NOT_MEASURED
    after = found["after"]
    return f"{number(_share(found['before']), digits)} → {with_interval(_share(after), after and after['interval'], digits)}"


def likeness_table(recognizers: Mapping[str, Seen]) -> Table:
    """ISM by recognizer and group."""
    rows: list[tuple[str, ...]] = []
    for name, seen in recognizers.items():
        for group, ism in seen["ism"].items():
            if ism is None:
                rows.append((name, GROUP_WORDS[group], *(NOT_MEASURED,) * 5))
                continue
            cells = [
                with_interval(ism[key], ism[f"{key}_interval"], 2) for key in ("before", "after", "ratio")
            ]
            p = (ism.get("difference") or {}).get("p")
            rows.append(
                (
                    name,
                    GROUP_WORDS[group],
                    *cells,
                    number(p) if p is None or p >= 0.001 else "< 0.001",
                    _images(seen, group, ism),
                )
            )
    return Table(
        ("recognizer", "people", "ISM before", "ISM after", "after / before", "p", "images"), tuple(rows)
    )


def _images(seen: Seen, group: str, ism: Seen) -> str:
    faceless = seen["no_face"].get(group)
    if not faceless or not (faceless["before"] or faceless["after"]):
        return number(ism["n"])
    return f"{ism['n']} (no face in {faceless['before']} → {faceless['after']})"


def accuracy_table(recognizers: Mapping[str, Seen]) -> Table:
    """Nearest-centroid accuracy."""
    heads = {"acc_u": "AccU", "acc_r": "AccR", "srk": "SRK"}
    rows = []
    for name, seen in recognizers.items():
        before, after = (seen[when] or {} for when in ("before", "after"))
        rows.append(
            (
                name,
                seen["role"],
                *(arrow(before.get(key), after.get(key), 1 if key == "srk" else 2) for key in heads),
            )
        )
    return Table(("recognizer", "role", *heads.values()), tuple(rows))


def verification_table(recognizers: Mapping[str, Seen]) -> Table:
    """1:1 verification by recognizer, rate and group."""
    groups = [group for group in GROUP_WORDS if any(group in seen["ism"] for seen in recognizers.values())]
    rows = []
    for name, seen in recognizers.items():
        for far, threshold in seen["thresholds"].items():
            found = seen["verified"].get(far)
            rows.append(
                (
                    name,
                    far_text(far),
                    number(threshold["cosine"]),
                    *(_change((found or {}).get(group)) for group in groups),
                )
            )
    return Table(("recognizer", "FAR", "threshold", *(GROUP_WORDS[group] for group in groups)), tuple(rows))


def refusals(recognizers: Mapping[str, Seen]) -> list[tuple[str, str]]:
    """Why a recognizer cannot verify: its name (and the rate), and the reason."""
    found = []
    for name, seen in recognizers.items():
        if reason := (seen.get("references") or {}).get("refused"):
            found.append((f"{name}, forgotten", reason))
        found += [
            (f"{name}, FAR {far_text(far)}", level["refused"])
            for far, level in seen["thresholds"].items()
            if level["refused"]
        ]
    return found


def leak_table(recognizers: Mapping[str, Seen]) -> Table:
    """Leak@k by recognizer and rate."""
    tries = sorted(
        {int(k) for seen in recognizers.values() for found in seen["leak"].values() for k in found or ()}
    )
    rows = []
    for name, seen in recognizers.items():
        for far, found in seen["leak"].items():
            cells = [(found or {}).get(str(k)) or {"before": None, "after": None} for k in tries]
            rows.append((name, far_text(far), *(arrow(cell["before"], cell["after"]) for cell in cells)))
    return Table(("recognizer", "FAR", *(f"Leak@{k}" for k in tries)), tuple(rows))


def bystander_table(recognizers: Mapping[str, Seen]) -> Table:
    """On whom the forgotten people's images land."""
    private = any(
        found and found.get("landing")
        for seen in recognizers.values()
        for found in seen["bystanders"].values()
    )
    rows = []
    for name, seen in recognizers.items():
        for far, found in seen["bystanders"].items():
            if found is None:
                rows.append((name, far_text(far), *(NOT_MEASURED,) * (4 if private else 3)))
                continue
            cells = [
                with_interval(_share(found[when]), found[when] and found[when]["interval"], 2)
                for when in ("before", "after")
            ]
            rows.append(
                (
                    name,
                    far_text(far),
                    number(found["expected"], 2),
                    *cells,
                    *((_landing(found.get("landing")),) if private else ()),
                )
            )
    head = ("recognizer", "FAR", "by chance", "before", "after", *(("on one person",) if private else ()))
    return Table(head, tuple(rows))


def stranger_table(recognizers: Mapping[str, Seen]) -> Table:
    """Other people's images by the base alone that verify as a forgotten person: what the rate promises to be
    rare.
    """
    rows = [
        (name, far_text(far), with_interval(_share(found), found and found["interval"]))
        for name, seen in recognizers.items()
        for far, found in seen.get("strangers", {}).items()
    ]
    return Table(("recognizer", "FAR", "verify as the forgotten"), tuple(rows))


def _landing(found: Seen | None) -> str:
    if found is None:
        return NOT_MEASURED
    who = {True: " (the anchor)", False: " (not the anchor)", None: ""}[found["is_anchor"]]
    return arrow(found["before"], found["after"]) + who


def agreement_table(agreement: Mapping[str, Seen | None] | None) -> Table:
    """How many images both, one or no recognizer verifies."""
    known = {far: found for far, found in (agreement or {}).items() if found is not None}
    names = list(dict.fromkeys(name for found in known.values() for name in found["only"]))
    rows = []
    for far, found in known.items():
        counts = (
            found["both"],
            *(found["only"].get(name) for name in names),
            found["neither"],
            found["no_face"],
        )
        rows.append((far_text(far), *(number(count) for count in counts)))
    return Table(("FAR", "both", *(f"only {name}" for name in names), "neither", "no face"), tuple(rows), 1)


def quality_table(quality: Seen | None) -> Table:
    """KID, sharpness and face quality."""
    rows: list[tuple[str, ...]] = []
    sides = {"forget": "forgotten", "retain": "everybody else"}
    kid = (quality or {}).get("kid")
    for side, whom in sides.items():
        found = (kid or {}).get(side)
        parts = [(found or {}).get(key) for key in ("before", "after", "delta")]
        rows.append(
            (
                "KID \u00d7 1000, lower is better",
                whom,
                *(with_interval(_share(part), part and part["interval"], 2) for part in parts),
            )
        )
    for key, words in (
        ("sharpness", "sharpness (variance of the Laplacian)"),
        ("face_quality", "face quality"),
    ):
        for side, whom in sides.items():
            found = ((quality or {}).get(key) or {}).get(side) or {}
            digits = 4 if key == "sharpness" else 2
            cells = (number(found.get("before"), digits), number(found.get("after"), digits))
            rows.append((words, whom, *cells, _times(found)))
    return Table(("measure", "images of", "before", "after", "change"), tuple(rows))


def _times(found: Seen) -> str:
    ratio = found.get("ratio")
    return NOT_MEASURED if ratio is None else f"\u00d7 {with_interval(ratio, found.get('ratio_interval'), 2)}"


def attack_table(audit: Seen) -> Table:
    """Every attack with its budget and how it ended."""
    rows = [
        (attack["label"], outcome(attack)[1], attack["budget"], seconds(attack["seconds"]))
        for attack in audit["attacks"]
    ]
    return Table(("attack", "outcome", "budget", "time"), tuple(rows), 3)
