import pytest

from piu_lora.evidence import comparison
from piu_lora.evidence.comparison import FIGURES


def cell(person: int, seed: int, value: float | None, variant: str = "a") -> comparison.Cell:
    figures = {name: dict.fromkeys(FIGURES, value) for name in ("conditioning", "evaluating")}
    return comparison.Cell(variant, person, seed, 2.0, None, 1000, figures)


def test_medians_of_ratios_and_means_of_shares() -> None:
    (row, _) = comparison.rows_of([cell(0, 0, 0.0), cell(1, 0, 0.0), cell(2, 0, 1.0)])
    assert row.figures["forget"] is not None
    assert row.figures["recognised"] is not None
    assert row.figures["forget"][0] == 0.0
    assert row.figures["recognised"][0] == pytest.approx(1 / 3)


def test_seeds_of_a_person_are_drawn_together() -> None:
    """Two people whose seeds agree: the interval is that of two draws, not of twenty."""
    (row, _) = comparison.rows_of(
        [cell(person, seed, float(person)) for person in range(2) for seed in range(10)]
    )
    assert row.figures["recognised"] == (0.5, 0.0, 1.0)
    assert (row.people, row.cells) == (2, 20)


def test_what_was_not_measured_is_a_dash() -> None:
    rows = comparison.rows_of([cell(0, 0, None), cell(0, 0, 0.5, "b")])
    table = comparison.comparison_table(rows)
    assert table.index("evaluating") < table.index("conditioning")
    assert "| a | 1 | 1 | - |" in table
    assert "0.500 [0.500, 0.500]" in table
    assert comparison.comparison_csv(rows).splitlines()[1].startswith("a,conditioning,1,1,,,")
    assert comparison.comparison_picture(rows).startswith(b"\x89PNG")


def test_differences_are_of_the_same_person_and_seed() -> None:
    """People who differ by much more than the methods do: the pairs show it, the rows cannot. Cells of one
    alone do not count.
    """
    first = [cell(person, seed, 10.0 * person) for person in range(4) for seed in range(2)]
    second = [cell(person, 0, 10.0 * person + 0.5, "b") for person in range(3)]
    alone = [cell(9, 0, 0.0, "b"), cell(9, 0, 0.0, "c")]
    found = comparison.differences_from([*first, *second, *alone], "a")
    assert [(each.variant, each.recognizer, each.people, each.cells) for each in found] == [
        ("b", r, 3, 3) for r in second[0].figures
    ]
    assert found[0].figures["forget"] == found[0].figures["recognised"] == (0.5, 0.5, 0.5)
    table = comparison.difference_table(found)
    assert table.startswith("Less `a`, on the same people and seeds, by the evaluating recognizer:")
    assert table.count("| b | 3 | 3 | +0.500 [+0.500, +0.500] |") == 2


def test_differences_of_what_was_not_measured() -> None:
    (found, _) = comparison.differences_from([cell(0, 0, None), cell(0, 0, 0.5, "b")], "a")
    assert found.figures["forget"] is None
    assert "| b | 1 | 1 | - |" in comparison.difference_table([found])
