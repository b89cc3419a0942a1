"""The short tables of the command line."""

from piu_lora.cli.output import Table, as_text
from piu_lora.cli.tables import evaluation_parts, markdown_parts
from piu_lora.groups import GROUPS
from tests.evidence.test_report import scores


def test_the_table_is_aligned_and_holds_every_figure() -> None:
    lines = as_text(evaluation_parts({"arc": scores(), "a longer name": scores(forget=0.123)})).splitlines()
    assert len(lines) == 2 + 2 * len(GROUPS) + 2
    assert lines[2].split() == [
        "arc",
        "forgotten",
        "0.800",
        "0.160",
        "0.200",
        "[0.150,",
        "0.250]",
        "1.00",
        "->",
        "0.04",
    ]
    assert lines[6].startswith("a longer name  forgotten")
    column = lines[0].index("ISM before")
    assert all(line[column : column + 5] == "0.800" for line in lines[2:10])
    assert lines[-2:] == [f"{name}: AccU 0.04, AccR 0.90, SRK 18.0" for name in ("arc", "a longer name")]


def test_pictures_without_a_face_are_told_where_there_are_any() -> None:
    figures = scores()
    figures["no_face"] = {
        "forget": {"before": 0, "after": 2, "n": 48},
        "random": {"before": 0, "after": 0, "n": 48},
    }
    assert (
        as_text(evaluation_parts({"arc": figures})).splitlines()[-1]
        == "arc: images without a face (cosine 0, nobody): forgotten 0 -> 2"
    )
    figures["no_face"]["forget"]["after"] = 0
    assert "without a face" not in as_text(evaluation_parts({"arc": figures}))


def test_tables_of_markdown_become_tables() -> None:
    parts = list(
        markdown_parts("Two methods.\n\n| method | ISM |\n|---|--:|\n| piu | 0.1 |\n| uce | 0.2 |\n\nEnd.")
    )
    assert parts[:2] == ["Two methods.", ""]
    assert parts[2] == Table(["method", "ISM"], [["piu", "0.1"], ["uce", "0.2"]])
    assert parts[3:] == ["", "End."]
