"""The public form: needles planted in every field about the forgotten person are gone from every file."""

import base64
import copy
from collections.abc import Callable
from typing import Any

import pytest

from piu_lora.errors import BadInput
from piu_lora.evidence.report import (
    Pictures,
    merged,
    publishable,
    report_html,
    report_markdown,
    to_json,
    validate,
)
from piu_lora.evidence.report.html import Pair
from tests.evidence.report.example import document, png

NEEDLE = "Marie of Rosenheim"
COUNTS = (7700001, 7700002, 7700003)
FIGURES = (0.7654321, 0.8765432, 0.9876543)


def planted() -> dict[str, Any]:
    made = document()
    made["person"] = {"people": 1, "train": COUNTS[0], "held_out": COUNTS[1], "references": COUNTS[2]}
    made["settings"]["anchor"]["identity"] = f"{NEEDLE} settings"
    made["verdict"]["lines"][-1]["reason"] = f"{NEEDLE} reason"
    made["verdict"]["lines"][0]["reason"] = f"{NEEDLE} remark"
    made["evaluation"]["notes"] = [f"{NEEDLE} note"]
    made["evaluation"]["doubles"]["likely"] = f"{NEEDLE} double"
    for seen in made["evaluation"]["recognizers"].values():
        seen["references"]["refused"] = f"{NEEDLE} reference"
        seen["scores"]["forget_after"][0] = FIGURES[0]
        seen["neighbours"]["labels"][1] = f"{NEEDLE} label"
        seen["neighbours"]["after"][0][1] = FIGURES[1]
        for found in seen["bystanders"].values():
            if found is not None:
                found["landing"]["after"] = FIGURES[2]
    made["audit"]["attacks"][3]["finding"] = f"{NEEDLE} finding"
    return made


PICTURES = Pictures(png("red"), (Pair(f"{NEEDLE} label", png("green"), png("blue")),))
FORMS: list[Callable[[dict[str, Any]], str]] = [
    to_json,
    report_markdown,
    lambda made: report_html(made, PICTURES),
]


@pytest.mark.parametrize("form", FORMS, ids=["json", "markdown", "html"])
def test_nothing_planted_is_left(form: Callable[[dict[str, Any]], str]) -> None:
    private, public = form(planted()), form(publishable(planted()))
    assert NEEDLE in private
    for needle in (
        "Marie",
        "Rosenheim",
        *map(str, COUNTS),
        *(f"{count:,}" for count in COUNTS),
        *map(str, FIGURES),
    ):
        assert needle not in public


def test_every_needle_is_in_the_private_json() -> None:
    text = to_json(planted())
    words = ("settings", "reason", "remark", "note", "double", "reference", "label", "finding")
    assert all(f"{NEEDLE} {word}" in text for word in words)
    assert all(str(value) in text for value in (*COUNTS, *FIGURES))


def test_no_picture_is_in_a_public_page() -> None:
    private, public = (report_html(made, PICTURES) for made in (planted(), publishable(planted())))
    for picture in (PICTURES.sheet, PICTURES.pairs[0].before, PICTURES.pairs[0].after):
        assert picture is not None
        assert base64.b64encode(picture).decode() in private
        assert base64.b64encode(picture).decode() not in public
    assert "<img" not in public


def test_the_evidence_stays() -> None:
    private, public = document(), publishable(document())
    validate(public)
    for name, seen in public["evaluation"]["recognizers"].items():
        for part in ("ism", "recognised", "verified", "leak", "thresholds", "before", "after"):
            assert seen[part] == private["evaluation"]["recognizers"][name][part]
    assert [line["value"] for line in public["verdict"]["lines"]] == [
        line["value"] for line in private["verdict"]["lines"]
    ]
    assert [attack["figures"] for attack in public["audit"]["attacks"]] == [
        attack["figures"] for attack in private["audit"]["attacks"]
    ]
    assert public["evaluation"]["quality"] == private["evaluation"]["quality"]


def test_it_is_a_copy_and_stays_the_same() -> None:
    made = planted()
    kept = copy.deepcopy(made)
    public = publishable(made)
    assert made == kept
    assert publishable(public) == public


def test_a_private_report_that_is_only_called_public_is_refused() -> None:
    for part, named in (("person", "person"), ("evaluation", "evaluation")):
        made = publishable(document())
        made[part] = document()[part]
        with pytest.raises(BadInput, match=named):
            validate(made)


def test_a_private_section_is_laid_into_a_public_report_by_its_public_form() -> None:
    new = {key: value for key, value in publishable(document()).items() if key != "evaluation"}
    joined = merged(planted(), new)
    validate(joined)
    assert "Marie" not in to_json(joined)
    assert joined["evaluation"]["images"] == document()["evaluation"]["images"]
