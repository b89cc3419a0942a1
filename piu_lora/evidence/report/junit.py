"""A verdict as JUnit XML, which continuous-integration systems read."""

import re
import xml.etree.ElementTree as ET

from piu_lora.evidence.report.document import Verdict, VerdictLine
from piu_lora.evidence.report.wording import number

__all__ = ["junit_xml"]

_FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)  # what XML 1.0 cannot hold, escaped or not


def junit_xml(verdict: Verdict | None, name: str) -> str:
    """One test case for each line of the verdict, failed where the line failed.

    Args:
        verdict: the report's; None (nothing was judged) gives one skipped case.
        name: the suite's, e.g. "piu-lora evaluate".
    """
    lines = verdict.lines if verdict else ()
    failures = sum(not line.passed for line in lines)
    skipped = 0 if verdict else 1
    counts = {
        "tests": str(len(lines) + skipped),
        "failures": str(failures),
        "errors": "0",
        "skipped": str(skipped),
    }
    suites = ET.Element("testsuites", {"name": _clean(name), **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": _clean(name), **counts})
    for line in lines:
        _case(suite, line)
    if verdict is None:
        case = ET.SubElement(suite, "testcase", {"classname": "piu_lora", "name": "verdict"})
        ET.SubElement(case, "skipped", {"message": "nothing was judged"})
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _case(suite: ET.Element, line: VerdictLine) -> None:
    owner = line.recognizer or "all"
    case = ET.SubElement(
        suite,
        "testcase",
        {"classname": _clean(f"piu_lora.{owner}"), "name": _clean(f"{line.name}: {line.text}")},
    )
    if line.passed:
        return
    value = "not measured" if line.value is None else number(line.value)
    message = f"{line.text}: {value}, limit {line.relation} {number(line.limit)}"
    failure = ET.SubElement(
        case,
        "failure",
        {"message": _clean(message), "type": "limit" if line.value is not None else "not measured"},
    )
    failure.text = _clean(f"{message}\n{line.reason}".strip())


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)
