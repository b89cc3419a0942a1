"""Policies: what they read, what they refuse, and how each line is judged."""

from pathlib import Path
from typing import Any

import pytest

from piu_lora.errors import BadInput
from piu_lora.evidence import Policy, judge, verdict_of
from piu_lora.evidence.policy import EvaluationLimits
from piu_lora.evidence.report import Report, VerdictLine, report_of
from tests.evidence.report.example import document


def share(value: float) -> dict[str, Any]:
    return {"mean": value, "interval": None, "n": 10}


def likeness(ratio: float) -> dict[str, Any]:
    return {
        "before": 0.5,
        "before_interval": None,
        "after": 0.5 * ratio,
        "after_interval": None,
        "ratio": ratio,
        "ratio_interval": None,
        "n": 10,
        "people": 1,
    }


def section(**changes: Any) -> dict[str, Any]:
    """An evaluation that meets every default, with some figures changed."""
    values = {
        "forget_ism": 0.1,
        "recognised": 0.0,
        "verified": 0.0,
        "leak": 0.0,
        "no_face": 0,
        "random_ism": 0.99,
        "nearest_ism": 0.97,
        "anchor_ism": 1.0,
        "random_verified": 0.98,
        "nearest_verified": 0.95,
        "landing": 0.9,
        "sharpness": 0.9,
        "kid": 5.0,
        "seen_before": 0.9,
        "strangers": 0.0,
        "doubles": 0,
    } | changes
    sharpness = {
        "before": 0.02,
        "after": 0.02 * values["sharpness"],
        "ratio": values["sharpness"],
        "ratio_interval": None,
    }
    kid = {"before": None, "after": None, "delta": {"mean": values["kid"], "interval": None}}
    return {
        "seconds": None,
        "images": 20,
        "recognizers": {"arc": figures(values)},
        "agreement": None,
        "sweeps": [],
        "notes": [],
        "quality": {
            "kid": {"features": "", "forget": None, "retain": kid},
            "face_quality": None,
            "sharpness": {"forget": sharpness, "retain": sharpness},
        },
        "doubles": {"count": values["doubles"]},
    }


def figures(values: dict[str, Any]) -> dict[str, Any]:
    verified = {
        "forget": {"before": share(values["seen_before"]), "after": share(values["verified"])},
        "random": {"before": share(1.0), "after": share(values["random_verified"])},
        "nearest": {"before": share(1.0), "after": share(values["nearest_verified"])},
    }
    landing = {"before": 0.0, "after": values["landing"], "is_anchor": None}
    return {
        "role": "only evaluates",
        "thresholds": {"0.001": {"cosine": 0.4, "pairs": 10, "refused": ""}},
        "references": {"refused": ""},
        "recognised": {},
        "before": None,
        "ism": {
            group: likeness(values[f"{group}_ism"]) for group in ("forget", "random", "nearest", "anchor")
        },
        "no_face": {"forget": {"before": 0, "after": values["no_face"], "n": 10}},
        "after": {"acc_u": values["recognised"], "acc_r": None, "srk": None},
        "verified": {"0.001": verified},
        "leak": {"0.001": {"8": {"before": 1.0, "after": values["leak"]}}},
        "strangers": {"0.001": share(values["strangers"])},
        "bystanders": {"0.001": {"expected": None, "before": None, "after": None, "landing": landing}},
    }


def attack(name: str, **figures: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "label": name,
        "question": "",
        "seed": None,
        "seconds": None,
        "succeeded": False,
        "criterion": "",
        "finding": "",
        "budget": "",
        "figures": figures,
        "columns": [],
        "rows": [],
        "curves": [],
    }


def report(evaluation: dict[str, Any] | None = None, attacks: list[dict[str, Any]] | None = None) -> Report:
    audit = None if attacks is None else {"seconds": None, "budget": "", "far": 0.001, "attacks": attacks}
    return report_of({**document(), "verdict": None, "evaluation": evaluation, "audit": audit})


def missed(policy: Policy | None = None, **changes: Any) -> list[str]:
    lines = judge(report(section(**changes)), policy or Policy())
    return [line.name for line in lines if not line.passed]


def test_the_default_passes_what_is_fine() -> None:
    verdict = verdict_of(report(section()), Policy())
    assert verdict.passed
    assert verdict.policy == "default"
    names = [line.name for line in verdict.lines]
    assert set(names) == {name for name, limit in EvaluationLimits().to_dict().items() if limit != "off"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("forget_ism", 0.51),
        ("recognised", 0.06),
        ("verified", 0.06),
        ("no_face", 2),
        ("random_ism", 0.94),
        ("nearest_ism", 0.89),
        ("anchor_ism", 0.8),
        ("random_verified", 0.9),
        ("nearest_verified", 0.8),
        ("sharpness", 0.2),
        ("seen_before", 0.4),
        ("strangers", 0.2),
        ("doubles", 1),
    ],
)
def test_each_line_is_missed_for_its_own_reason(name: str, value: float) -> None:
    assert set(missed(**{name: value})) == {name}


@pytest.mark.parametrize(("name", "value"), [("leak", 0.5), ("landing", 0.95), ("kid", 30.0)])
def test_limits_that_are_off_can_be_put_on(name: str, value: float) -> None:
    assert missed(**{name: value}) == []
    assert missed(Policy().tightened(**{name: value - 0.1}), **{name: value}) == [name]


def test_what_was_not_measured_does_not_pass() -> None:
    evaluation = section()
    evaluation["recognizers"]["arc"]["thresholds"]["0.001"] |= {
        "cosine": None,
        "refused": "900 impostor pairs cannot resolve it",
    }
    evaluation["recognizers"]["arc"]["verified"]["0.001"] = None
    lines = {line.name: line for line in judge(report(evaluation), Policy())}
    assert not lines["verified"].passed
    assert lines["verified"].value is None
    assert lines["verified"].reason == "900 impostor pairs cannot resolve it"
    assert lines["forget_ism"].passed


def test_met_exactly_is_met() -> None:
    assert VerdictLine.judged("a", 0.5, "<=", 0.5, text="a").passed
    assert VerdictLine.judged("a", 0.5, ">=", 0.5, text="a").passed
    assert not VerdictLine.judged("a", 0.5, ">=", None, text="a").passed


def test_a_file_lays_limits_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "strict.toml"
    path.write_text(
        '[evaluation]\nverified = 0\nno_face = "off"\n'
        '[audit]\n"reidentify.rank" = {min = 10}\n"cone.leaks" = {max = 0.1}\n'
    )
    policy = Policy.load(path)
    assert policy.name == "strict.toml"
    assert policy.far == 0.001
    assert missed(policy, verified=0.01, no_face=9) == ["verified"]
    attacks = [attack("reidentify", rank=3), attack("cone", leaks=None, radius=0.5)]
    lines = {line.name: line for line in judge(report(attacks=attacks), policy)}
    assert not lines["reidentify.rank"].passed
    assert lines["cone.leaks"].reason == "the attack could not measure this"
    absent = judge(report(attacks=attacks[:1]), policy)[1]
    assert absent.reason == "no attack of this audit has a figure 'cone.leaks'; known: reidentify.rank"


def test_a_policy_may_call_an_attack_by_its_old_name(tmp_path: Path) -> None:
    (tmp_path / "old.toml").write_text('[audit]\n"poster.response_rank" = {min = 5}\n')
    (bound,) = Policy.load(tmp_path / "old.toml").audit
    assert bound.key == "reidentify.response_rank"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[evaluation]\nverifed = 0.1\n",
            r"unknown setting 'evaluation\.verifed': did you mean evaluation\.verified\?",
        ),
        ("far = 2.0\n", r"far = 2\.0 is out of range"),
        ("fra = 0.1\n", r"unknown key 'fra'; known: far, evaluation, audit"),
        ('[audit]\n"reidentify.rank" = 3\n', r"audit\.'reidentify\.rank' = 3 is no limit"),
        ('[audit]\n"reidentify.rank" = {min = 1, max = 2}\n', "is no limit"),
        ("audit = 3\n", "audit = 3 is no table"),
        (
            "far = 0.5\n",
            r"policy\.toml': far = 0\.5 is out of range: "
            r"expected one of the calibrated rates, 0\.01, 0\.001, 0\.0001",
        ),
        ("far = \n", "cannot read the policy"),
        ('[evaluation]\nverified = "none"\n', "verified = 'none' has the wrong type"),
    ],
)
def test_policies_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        Policy.load(path)


def test_only_judges_what_is_stated() -> None:
    policy = Policy.only("command line", verified=0.0)
    assert [line.name for line in judge(report(section()), policy)] == ["verified"]


def test_an_empty_report_passes_nothing() -> None:
    assert verdict_of(report(), Policy()).passed is False
