"""Policies: what they read, what they refuse, and how each line is judged."""

from pathlib import Path
from typing import Any

import pytest

from piu_lora.errors import BadInput
from piu_lora.evidence import Policy, judge, verdict_of
from piu_lora.evidence.policy import EvaluationLimits, Line


def mean(value: float) -> dict[str, float]:
    return {"mean": value}


def section(**changes: Any) -> dict[str, Any]:
    """An evaluation that meets every default, with some figures changed."""
    given = {
        "forget_ism": 0.1, "recognised": 0.0, "verified": 0.0, "leak": 0.0, "no_face": 0, "random_ism": 0.99, "nearest_ism": 0.97,
        "anchor_ism": 1.0, "random_verified": 0.98, "nearest_verified": 0.95, "landing": 0.9, "sharpness": 0.9, "kid": 5.0,
        "seen_before": 0.9, "strangers": 0.0, "doubles": 0,
    } | changes  # fmt: skip
    verified = {
        "forget": {"before": mean(given["seen_before"]), "after": mean(given["verified"])},
        "random": {"before": mean(1.0), "after": mean(given["random_verified"])},
        "nearest": {"before": mean(1.0), "after": mean(given["nearest_verified"])},
    }
    ratios = {
        "forget": given["forget_ism"],
        "random": given["random_ism"],
        "nearest": given["nearest_ism"],
        "anchor": given["anchor_ism"],
    }
    figures = {
        "thresholds": {"0.001": {"refused": ""}}, "references": {"refused": ""}, "verified": {"0.001": verified},
        "leak": {"0.001": {"8": {"after": given["leak"]}}}, "no_face": {"forget": {"after": given["no_face"], "n": 10}},
        "ism": {group: {"ratio": ratio} for group, ratio in ratios.items()}, "after": {"acc_u": given["recognised"]},
        "bystanders": {"0.001": {"landing": {"after": given["landing"]}}}, "strangers": {"0.001": mean(given["strangers"])},
    }  # fmt: skip
    quality = {
        "sharpness": {
            side: {"before": 0.02, "after": 0.02 * given["sharpness"], "ratio": given["sharpness"]}
            for side in ("forget", "retain")
        },
        "kid": {"retain": {"delta": mean(given["kid"])}},
    }
    return {"recognizers": {"arc": figures}, "quality": quality, "doubles": {"count": given["doubles"]}}


def missed(policy: Policy | None = None, **changes: Any) -> list[str]:
    return [
        line.name for line in judge({"evaluation": section(**changes)}, policy or Policy()) if not line.passed
    ]


def test_the_default_passes_what_is_fine() -> None:
    verdict = verdict_of({"evaluation": section()}, Policy())
    assert verdict["passed"]
    assert verdict["policy"] == "default"
    names = [line["name"] for line in verdict["lines"]]
    assert set(names) == {name for name, limit in EvaluationLimits().to_dict().items() if limit != "off"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("forget_ism", 0.51), ("recognised", 0.06), ("verified", 0.06), ("no_face", 2), ("random_ism", 0.94), ("nearest_ism", 0.89),
        ("anchor_ism", 0.8), ("random_verified", 0.9), ("nearest_verified", 0.8), ("sharpness", 0.2), ("seen_before", 0.4),
        ("strangers", 0.2), ("doubles", 1),
    ],
)  # fmt: skip
def test_each_line_is_missed_for_its_own_reason(name: str, value: float) -> None:
    assert set(missed(**{name: value})) == {name}


@pytest.mark.parametrize(("name", "value"), [("leak", 0.5), ("landing", 0.95), ("kid", 30.0)])
def test_limits_that_are_off_can_be_put_on(name: str, value: float) -> None:
    assert missed(**{name: value}) == []
    assert missed(Policy().tightened(**{name: value - 0.1}), **{name: value}) == [name]


def test_what_was_not_measured_does_not_pass() -> None:
    document = section()
    document["recognizers"]["arc"]["thresholds"]["0.001"]["refused"] = "900 impostor pairs cannot resolve it"
    document["recognizers"]["arc"]["verified"]["0.001"] = None
    lines = {line.name: line for line in judge({"evaluation": document}, Policy())}
    assert not lines["verified"].passed
    assert lines["verified"].value is None
    assert lines["verified"].reason == "900 impostor pairs cannot resolve it"
    assert lines["forget_ism"].passed


def test_met_exactly_is_met() -> None:
    for relation in ("<=", ">="):
        assert Line("a", "", "", 0.5, 0.5, relation).passed  # type: ignore[arg-type]
    assert not Line("a", "", "", None, 0.5, ">=").passed


def test_a_file_lays_limits_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "strict.toml"
    path.write_text(
        '[evaluation]\nverified = 0\nno_face = "off"\n[audit]\n"reidentify.rank" = {min = 10}\n"cone.leaks" = {max = 0.1}\n'
    )
    policy = Policy.load(path)
    assert policy.name == "strict.toml"
    assert policy.far == 0.001
    assert missed(policy, verified=0.01, no_face=9) == ["verified"]
    attacks = [
        {"name": "reidentify", "figures": {"rank": 3}},
        {"name": "cone", "figures": {"leaks": None, "radius": 0.5}},
    ]
    lines = {line.name: line for line in judge({"audit": {"attacks": attacks}}, policy)}
    assert not lines["reidentify.rank"].passed
    assert lines["cone.leaks"].reason == "the attack could not measure this"
    absent = judge({"audit": {"attacks": attacks[:1]}}, policy)[1]
    assert absent.reason == "no attack of this audit has a figure 'cone.leaks'; known: reidentify.rank"


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
            r"policy\.toml': far = 0\.5 is out of range: expected one of the calibrated rates, 0\.01, 0\.001, 0\.0001",
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
    assert [line.name for line in judge({"evaluation": section()}, policy)] == ["verified"]


def test_an_empty_report_passes_nothing() -> None:
    assert verdict_of({}, Policy())["passed"] is False
