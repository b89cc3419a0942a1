"""Reports: report.json (a validated document), report.md for a card, report.html for people, JUnit XML for
machines.
"""

from piu_lora.evidence.report.document import (
    REPORT_FORMAT,
    Report,
    Verdict,
    VerdictLine,
    read_report,
    report_of,
    report_schema,
    to_json,
)
from piu_lora.evidence.report.html import Pictures, report_html
from piu_lora.evidence.report.junit import junit_xml
from piu_lora.evidence.report.markdown import report_markdown
from piu_lora.evidence.report.public import merged, publishable
from piu_lora.evidence.report.table import summary

__all__ = [
    "REPORT_FORMAT",
    "Pictures",
    "Report",
    "Verdict",
    "VerdictLine",
    "junit_xml",
    "merged",
    "publishable",
    "read_report",
    "report_html",
    "report_markdown",
    "report_of",
    "report_schema",
    "summary",
    "to_json",
]
