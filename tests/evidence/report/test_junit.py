import xml.etree.ElementTree as ET

import pytest

from piu_lora.documents import parsed
from piu_lora.errors import BadInput
from piu_lora.evidence.report import Verdict, junit_xml
from tests.evidence.report.example import verdict


def test_a_case_for_each_line_and_a_failure_for_each_missed_one() -> None:
    made = verdict()
    root = ET.fromstring(junit_xml(parsed(Verdict, made, "verdict"), "piu-lora evaluate").encode())
    assert root.tag == "testsuites"
    (suite,) = root
    cases = list(suite)
    assert (suite.tag, suite.get("name"), {request.tag for request in cases}) == (
        "testsuite",
        "piu-lora evaluate",
        {"testcase"},
    )
    failed = [request for request in cases if request.find("failure") is not None]
    for element in (root, suite):
        assert (
            element.get("tests"),
            element.get("failures"),
            element.get("errors"),
            element.get("skipped"),
        ) == ("10", "2", "0", "0")
    assert (len(cases), len(failed)) == (10, 2)
    assert [request.get("name") for request in cases] == [
        f"{line['name']}: {line['text']}" for line in made["lines"]
    ]
    assert all(request.get("classname") for request in cases)


def test_a_failure_says_value_limit_and_reason() -> None:
    root = ET.fromstring(junit_xml(parsed(Verdict, verdict(), "verdict"), "x").encode())
    first, second = root.findall(".//failure")
    assert "0.120, limit <= 0.05" in str(first.get("message"))
    assert first.get("type") == "limit"
    assert "not measured, limit <= 5" in str(second.get("message"))
    assert second.get("type") == "not measured"
    assert "there are no photographs to compare with" in str(second.text)


def test_nothing_judged_is_skipped() -> None:
    (suite,) = ET.fromstring(junit_xml(None, "x").encode())
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("1", "0", "1")
    assert suite.find("testcase/skipped") is not None


def test_hostile_words_stay_words() -> None:
    made = verdict()
    made["lines"][6]["text"] = 'a <b> & "c" \x00\x1b\ufffe ]]>'
    root = ET.fromstring(junit_xml(parsed(Verdict, made, "verdict"), "<suite>").encode())
    assert root.get("name") == "<suite>"
    names = [str(request.get("name")) for request in root.iter("testcase")]
    assert 'verified: a <b> & "c" ��� ]]>' in names


def test_half_a_letter_is_no_text_of_a_verdict() -> None:
    made = verdict()
    made["lines"][6]["text"] = "\ud800"
    with pytest.raises(BadInput, match=r"lines\[6\]\.text"):
        parsed(Verdict, made, "verdict")
