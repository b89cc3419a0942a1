"""The public form: needles planted in every field about the forgotten person are gone from every file."""

import base64
from collections.abc import Callable

import pytest

from piu_lora.errors import BadInput
from piu_lora.evidence.report import (
    Pictures,
    Report,
    merged,
    publishable,
    report_html,
    report_markdown,
    report_of,
    to_json,
)
from tests.evidence.report.example import document, png, report

pytestmark = pytest.mark.usefixtures("remembered")
NEEDLE = "Marie of Rosenheim"
COUNTS = (7700001, 7700002, 7700003)
FIGURES = (0.7654321, 0.8765432, 0.9876543)


def planted() -> Report:
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
    return report_of(made)


PICTURES = Pictures(png("red"))
FORMS: list[Callable[[Report], str]] = [to_json, report_markdown, lambda made: report_html(made, PICTURES)]


@pytest.mark.parametrize("form", FORMS, ids=["json", "markdown", "html"])
def test_nothing_planted_is_left(form: Callable[[Report], str]) -> None:
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
    assert PICTURES.sheet is not None
    assert base64.b64encode(PICTURES.sheet).decode() in private
    assert base64.b64encode(PICTURES.sheet).decode() not in public
    assert "<img" not in public


def test_the_evidence_stays() -> None:
    private, public = document(), publishable(report()).to_dict()
    report_of(public)
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
    before = to_json(made)
    public = publishable(made)
    assert to_json(made) == before
    assert publishable(public) == public


def test_a_private_report_that_is_only_called_public_is_refused() -> None:
    for part, named in (("person", "person"), ("evaluation", "evaluation")):
        made = publishable(report()).to_dict()
        made[part] = document()[part]
        with pytest.raises(BadInput, match=named):
            report_of(made)


def test_a_private_section_is_laid_into_a_public_report_by_its_public_form() -> None:
    new = {key: value for key, value in publishable(report()).to_dict().items() if key != "evaluation"}
    joined = merged(planted(), report_of(new))
    report_of(joined.to_dict())
    assert "Marie" not in to_json(joined)
    assert joined.to_dict()["evaluation"]["images"] == document()["evaluation"]["images"]
