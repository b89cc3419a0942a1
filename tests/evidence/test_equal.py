"""Methods at equal forgetting, on curves whose answer is known."""

import pytest

from piu_lora.evidence import comparison
from piu_lora.evidence.curves import curves_picture
from piu_lora.evidence.equal import DEPTHS, equal_rows, equal_table, read_at
from piu_lora.evidence.images import figures_of_images


def figures(forget: float, nearest: float, verified: float = 0.0) -> dict[str, float]:
    return {
        "forget": forget, "nearest": nearest, "random": 1.0, "anchor": 1.0, "verified": verified,
        "recognised": 0.0, "no_face": 0.0,
    }  # fmt: skip


def cell(variant: str, person: int, forget: float, nearest: float, verified: float = 0.0) -> comparison.Cell:
    return comparison.Cell(
        variant, person, 0, 1.0, None, 1, {"evaluating": figures(forget, nearest, verified)}
    )


def test_a_depth_is_read_off_the_straight_line_between_two_settings() -> None:
    at_02, at_01, at_0, verified = DEPTHS
    points = [figures(0.1, 0.8, 0.0), figures(0.5, 0.9, 0.4)]
    assert read_at(points, at_02)["nearest"] == pytest.approx(0.9 - 0.1 * 0.3 / 0.4)
    assert read_at(points, at_01)["nearest"] == pytest.approx(0.8)
    assert read_at(points, at_0) is None
    assert read_at(points, verified)["nearest"] == pytest.approx(0.9 - 0.1 * 0.35 / 0.4)
    # The curve begins with the untouched base.
    assert read_at([figures(0.0, 0.5)], at_02)["nearest"] == pytest.approx(1 - 0.5 * 0.8)
    assert read_at([], at_02) is None


def test_methods_are_compared_on_the_people_with_whom_both_get_so_deep() -> None:
    cells = [
        cell(variant, person, forget, nearest)
        for person in range(3)
        for variant, forget, nearest in (
            ("a", 0.0, 1.0),
            ("a weight=0.5", 0.5, 1.0),
            ("b", 0.2 if person else 0.3, 0.6),
            ("b k=1", 0.6, 0.8),
        )
    ]
    curves = {"a": "a", "a weight=0.5": "a", "b": "b", "b k=1": "b"}
    rows = {(row.method, row.depth): row for row in equal_rows([*cells, cell("c", 0, 0.0, 0.1)], curves, "a")}
    assert {method for method, _ in rows} == {"a", "b"}
    deep = rows["b", "forget ISM 0.2"]
    assert (deep.reached, deep.people, deep.points) == (2, 3, 2)
    assert deep.kept["nearest"] == pytest.approx((0.6, 0.6, 0.6))
    assert deep.less == pytest.approx((0.4, 0.4, 0.4))
    assert rows["b", "forget ISM 0.0"].reached == 0
    assert rows["b", "forget ISM 0.0"].kept["nearest"] is None
    assert rows["a", "forget ISM 0.0"].kept["nearest"] == pytest.approx((1, 1, 1))
    text = equal_table(list(rows.values()), "a")
    assert "| b | 2 | 2 of 3 | 0.600 [0.600, 0.600] |" in text
    assert "| b | 2 | 0 of 3 | never so deep | - | - |" in text
    assert "At verified 5 %, by the evaluating recognizer:" in text
    # One setting is no curve.
    assert equal_rows(cells[:1], {"a": "a"}) == []
    assert curves_picture(cells, curves).startswith(b"\x89PNG")


def test_figures_of_images_are_those_of_their_means() -> None:
    cosines = {
        "threshold": 0.3,
        "forget": [[0.8, 0.6], [0.4, 0.1]],
        "nearest": [[0.5], [0.4]],
        "random": [[0.5, 0.7], [0.6, 0.6]],
        "anchor": [[], []],
    }
    found = figures_of_images(cosines)
    assert found["forget"] == pytest.approx(0.5 / 1.4)
    assert found["nearest"] == pytest.approx(0.8)
    assert found["random"] == pytest.approx(1.0)
    assert found["anchor"] is None
    assert found["verified"] == 0.5
    assert figures_of_images({**cosines, "threshold": None})["verified"] is None
