import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from piu_lora.errors import BadInput
from piu_lora.evidence.report import merged, read_report, report_of, report_schema, to_json
from piu_lora.evidence.report.first_format import read_short_report
from tests.evidence.report.example import document, report

ROOT = Path(__file__).parents[3]
Spoil = Callable[[dict[str, Any]], Any]


def test_the_schema_is_one_and_describes_every_part() -> None:
    Draft202012Validator.check_schema(report_schema())
    assert report_schema()["properties"]["format"]["const"] == "piu_lora.report/2"
    assert all(
        "description" in report_schema()["$defs"][name]
        for name in ("Recognizer", "Verified", "Attack", "Curve", "Verdict", "Ism")
    )


def test_the_schema_takes_what_the_models_take() -> None:
    Draft202012Validator(report_schema()).validate(json.loads(to_json(report())))


def test_objects_of_a_fixed_form_take_no_other_key() -> None:
    def objects(part: Any) -> Any:
        if isinstance(part, dict):
            if "properties" in part and "type" in part:
                yield part
            for child in part.values():
                yield from objects(child)
        elif isinstance(part, list):
            for child in part:
                yield from objects(child)

    found = list(objects(report_schema()))
    assert len(found) > 25
    assert [part for part in found if "additionalProperties" not in part] == []


def test_a_full_example_passes_and_goes_round(tmp_path: Path) -> None:
    text = to_json(report())
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    assert read_report(path) == report()
    assert read_report(path).to_dict() == document()
    assert to_json(read_report(path)) == text


def test_the_text_keeps_the_order_of_keys_which_tables_are_made_in(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(to_json(report()), encoding="utf-8")
    for found in (read_report(path).to_dict(), document()):
        assert list(found["evaluation"]["recognizers"]["conditioning"]["ism"])[:4] == [
            "forget",
            "random",
            "nearest",
            "anchor",
        ]


def test_tuples_and_numpy_floats_are_numbers_and_arrays() -> None:
    made = document()
    made["evaluation"]["recognizers"]["conditioning"]["ism"]["forget"]["before_interval"] = (
        np.float64(0.1),
        0.2,
    )
    assert json.loads(to_json(report_of(made)))["evaluation"]["recognizers"]["conditioning"]["ism"]["forget"][
        "before_interval"
    ] == [0.1, 0.2]


@pytest.mark.parametrize("name", ["evaluation", "audit", "both"])
def test_a_section_may_be_absent(name: str) -> None:
    made = document()
    for section in ("evaluation", "audit") if name == "both" else (name,):
        del made[section]
    report_of(made)


SEEN = "evaluation.recognizers.conditioning"
PLANTED: list[tuple[str, Any, str]] = [
    ("format", "piu_lora.report/1", "$.format"),
    ("public", "no", "$.public"),
    ("surname", "x", "surname"),
    ("adapter.bytes", -1, "$.adapter.bytes"),
    ("adapter.owner", "x", "owner"),
    ("base.revision", 3, "$.base.revision"),
    ("environment.threads", 1.5, "$.environment.threads"),
    ("seed", "42", "$.seed"),
    ("person.photos", 3, "photos"),
    ("verdict.lines.0.relation", "<", "$.verdict.lines[0].relation"),
    ("verdict.lines.0.value", 0.9, "$.verdict.lines[0].passed"),
    ("verdict.lines.9.reason", "", "$.verdict.lines[9].reason"),
    ("verdict.passed", True, "$.verdict.passed"),
    (f"{SEEN}.role", "judges", f"$.{SEEN}.role"),
    (f"{SEEN}.after.acc_u", 1.2, f"$.{SEEN}.after.acc_u"),
    (f"{SEEN}.ism.forget.before", 1.01, f"$.{SEEN}.ism.forget.before"),
    (f"{SEEN}.ism.forget.after", math.nan, f"$.{SEEN}.ism.forget.after"),
    (f"{SEEN}.ism.forget.ratio", math.inf, f"$.{SEEN}.ism.forget.ratio"),
    (f"{SEEN}.ism.forget.ratio_interval", [0.3, 0.2], f"$.{SEEN}.ism.forget.ratio_interval"),
    (f"{SEEN}.ism.forget.after_interval", [0.3], f"$.{SEEN}.ism.forget.after_interval"),
    (f"{SEEN}.ism.friends", None, "friends"),
    (f"{SEEN}.recognised.forget.after.mean", -0.1, f"$.{SEEN}.recognised.forget.after.mean"),
    (f"{SEEN}.thresholds.0/01.refused", "too few", f"$.{SEEN}.thresholds['0.01']"),
    (f"{SEEN}.verified.1e-3", None, "1e-3"),
    (f"{SEEN}.scores.impostor", [1.0], f"$.{SEEN}.scores.impostor"),
    (f"{SEEN}.neighbours.labels", ["forgotten"], f"$.{SEEN}.neighbours.before"),
    ("evaluation.quality.kid.features", None, "$.evaluation.quality.kid.features"),
    ("evaluation.notes", "none", "$.evaluation.notes"),
    ("evaluation.sweeps.0.points.0.value", None, "$.evaluation.sweeps[0].points[0].value"),
    ("audit.far", 1.0, "$.audit.far"),
    ("audit.attacks.0.succeeded", "no", "$.audit.attacks[0].succeeded"),
    ("audit.attacks.0.rows.1", ["short"], "$.audit.attacks[0].rows[1]"),
    ("audit.attacks.0.curves.0.series.0.y", [0.1], "$.audit.attacks[0].curves[0].series[0].y"),
    ("audit.attacks.3.finding", "", "$.audit.attacks[3].finding"),
    ("audit.attacks.0.figures.radius", "wide", "$.audit.attacks[0].figures.radius"),
]


def plant(made: dict[str, Any], path: str, value: Any) -> None:
    *steps, last = path.replace("0/01", "0_01").split(".")
    part: Any = made
    for step in steps:
        part = part[int(step)] if isinstance(part, list) else part[step.replace("0_01", "0.01")]
    part[int(last) if isinstance(part, list) else last] = value


@pytest.mark.parametrize(("path", "value", "named"), PLANTED, ids=[path for path, _, _ in PLANTED])
def test_a_planted_error_is_refused_by_its_path(path: str, value: Any, named: str) -> None:
    made = document()
    plant(made, path, value)
    with pytest.raises(BadInput) as caught:
        report_of(made)
    assert named in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "path",
    ["adapter", "verdict", "public", "evaluation.recognizers", f"{SEEN}.leak", "audit.attacks.0.criterion"],
)
def test_a_missing_key_is_named(path: str) -> None:
    made = document()
    *steps, last = path.split(".")
    part: Any = made
    for step in steps:
        part = part[int(step)] if isinstance(part, list) else part[step]
    del part[last]
    with pytest.raises(BadInput, match=last):
        report_of(made)


def test_an_empty_verdict_does_not_pass() -> None:
    made = document()
    made["verdict"] = {"passed": True, "policy": "default", "lines": []}
    with pytest.raises(BadInput, match=r"verdict\.passed"):
        report_of(made)


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "not JSON"), ("[]", "expected an object"), ("{}", "expected 'piu_lora.report/2'")],
)
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=told):
        read_report(path)


def test_a_missing_file_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="piu-lora evaluate"):
        read_report(tmp_path / "report.json")


def adapters_disabled(made: dict[str, Any], section: str) -> dict[str, Any]:
    return {key: value for key, value in made.items() if key != section}


def test_the_other_commands_section_is_kept() -> None:
    evaluated, audited = (
        adapters_disabled(document(), "audit"),
        {**adapters_disabled(document(), "evaluation"), "seed": 7, "verdict": None, "person": None},
    )
    before = copy.deepcopy((evaluated, audited))
    joined = merged(report_of(evaluated), report_of(audited)).to_dict()
    report_of(joined)
    assert joined["evaluation"] == document()["evaluation"]
    assert joined["audit"] == document()["audit"]
    assert (joined["seed"], joined["verdict"], joined["person"]) == (
        7,
        document()["verdict"],
        document()["person"],
    )
    assert (evaluated, audited) == before


def test_a_new_section_replaces_the_old_one() -> None:
    new = adapters_disabled(document(), "audit")
    new["evaluation"]["images"] = 1
    assert merged(report(), report_of(new)).to_dict()["evaluation"]["images"] == 1


def test_reports_of_other_weights_are_not_joined() -> None:
    other = document()
    other["adapter"]["weights_sha256"] = "cd" * 32
    with pytest.raises(BadInput, match="other weights"):
        merged(report_of(other), report())


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("benchmarks/results/reports/*.json")), ids=lambda path: path.stem
)
def test_published_reports_are_read_and_written_to_the_byte(path: Path) -> None:
    assert to_json(read_report(path)) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("adapters/*/report/report.json")), ids=lambda path: path.parts[-3]
)
def test_the_short_reports_of_published_adapters_are_read(path: Path) -> None:
    short = read_short_report(path)
    assert short.to_dict() == json.loads(path.read_text(encoding="utf-8"))
    assert short.recognizers["conditioning"].after.acc_u == 0
    with pytest.raises(BadInput, match="report/1"):
        read_report(path)
