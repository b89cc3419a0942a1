"""Places on the charts against the plain formula, and labels that never overlap."""

import itertools
import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from piu_lora.evidence.report.charts import Plot, wrapped
from piu_lora.evidence.report.scales import Scale, between, categories, linear, logarithmic, spread

from piu_lora.evidence.report.curves import curve_chart, styles
from piu_lora.evidence.report.panels import agreement_bar, neighbour_map, plane, score_chart, sweep_chart
from tests.evidence.report.example import audit, evaluation, recognizer

SEEN = recognizer("conditions the base", 0.0, True)


def drawn(chart: str | None) -> ET.Element:
    assert chart is not None
    return ET.fromstring(str(chart))


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=20))
def test_a_linear_axis_holds_its_values_and_its_ticks_are_even(values: list[float]) -> None:
    scale = linear(values)
    slack = 1e-6 * (scale.high - scale.low)
    assert scale.low <= min(values) + slack
    assert scale.high >= max(values) - slack
    steps = [right - left for (left, _), (right, _) in zip(scale.ticks, scale.ticks[1:], strict=False)]
    assert 1 <= len(steps) <= 8
    assert max(steps) - min(steps) < 1e-6 * max(steps)


def test_ticks_are_round_and_labelled_as_such() -> None:
    assert [label for _, label in linear((0.0, 1.0)).ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [label for _, label in linear((0.0, 1.25)).ticks] == [
        "0.00",
        "0.25",
        "0.50",
        "0.75",
        "1.00",
        "1.25",
    ]
    assert [label for _, label in linear((0, 4000)).ticks] == ["0", "1,000", "2,000", "3,000", "4,000"]
    assert between(0.13, 0.87).low == 0.13
    assert all(0.13 <= value <= 0.87 for value, _ in between(0.13, 0.87).ticks)


def test_places_follow_the_formula() -> None:
    assert linear((0, 10)).place(2.5) == 0.25
    assert logarithmic([1, 8, 64]).place(8) == pytest.approx(math.log(8) / math.log(64))
    assert categories(["a", "b", "c", "a"]).place("b") == 0.5
    assert linear((0, 1)).place(7) == 1


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(5, 30)), min_size=1, max_size=6))
def test_spread_labels_do_not_overlap_and_keep_their_order(entries: list[tuple[float, float]]) -> None:
    places, heights = [place for place, _ in entries], [height for _, height in entries]
    moved = spread(places, heights, 0, 200)
    order = sorted(range(len(places)), key=lambda index: places[index])
    for one, other in itertools.pairwise(order):
        assert moved[other] - moved[one] >= (heights[one] + heights[other]) / 2 - 1e-9
    assert all(
        moved[index] - heights[index] / 2 + 1e-9 >= 0 and moved[index] + heights[index] / 2 <= 200 + 1e-9
        for index in order
    )


def test_a_point_lies_where_its_values_say() -> None:
    plot = Plot(
        "t",
        Scale(0, 2, ()),
        Scale(0, 4, ()),
        "x",
        "y",
        width=300,
        height=200,
        left=50,
        right=50,
        top=20,
        bottom=30,
    )
    plot.point(0.5, 1.0, "forget")
    circle = drawn(plot.svg()).find("circle")
    assert circle is not None
    assert (float(circle.get("cx", "")), float(circle.get("cy", ""))) == (
        50 + 200 * 0.25,
        200 - 30 - 150 * 0.25,
    )


def test_a_missing_value_breaks_the_line_and_is_not_drawn_as_zero() -> None:
    plot = Plot("t", Scale(0, 3, ()), Scale(0, 1, ()), "x", "y")
    plot.line([0, 1, 2, 3], [0.5, None, 0.5, 0.5], "forget")
    path = next(element.get("d", "") for element in drawn(plot.svg()).iter("path"))
    assert (path.count("M"), path.count("L")) == (2, 1)
    assert f"{plot.at_y(0):.1f}" not in path


def test_every_calibrated_threshold_is_drawn_at_its_cosine_and_named() -> None:
    root = drawn(score_chart("conditioning", SEEN))
    words = [element.text for element in root.iter("text")]
    xs = sorted(
        float(element.get("x1", "")) for element in root.iter("line") if element.get("class") == "rule"
    )
    levels = sorted(found["cosine"] for found in SEEN["thresholds"].values())
    assert all(
        f"FAR {name}: {level:.3f}" in words
        for name, level in zip(("1e-4", "1e-3", "1e-2"), reversed(levels), strict=True)
    )
    gaps = [(xs[1] - xs[0]) / (levels[1] - levels[0]), (xs[2] - xs[1]) / (levels[2] - levels[1])]
    assert gaps[0] == pytest.approx(gaps[1], rel=0.02)


def test_a_refused_threshold_is_not_drawn() -> None:
    root = drawn(score_chart("evaluating", recognizer("only evaluates", 0.0, False)))
    assert sum(element.get("class") == "rule" for element in root.iter("line")) == 2


def test_charts_have_a_name_for_screen_readers() -> None:
    seen = evaluation()["recognizers"]
    charts = [
        plane(seen),
        score_chart("c", SEEN),
        sweep_chart(evaluation()["sweeps"][0], "conditioning", 0.4, "0.001"),
    ]
    charts += [
        neighbour_map("c", SEEN["neighbours"]["labels"], SEEN["neighbours"]["before"]),
        agreement_bar("0.01", evaluation()["agreement"]["0.01"]),
    ]
    for chart in charts:
        root = drawn(chart)
        assert root.get("role") == "img"
        assert root.get("aria-label") == root.findtext("title")
        assert root.get("aria-label")


def test_the_plane_has_a_mark_for_each_retained_group_and_recognizer() -> None:
    root = drawn(plane(evaluation()["recognizers"]))
    marks = [element for element in root.iter() if element.get("class") == "point"]
    assert len(marks) == 2 * 3
    assert sum(element.tag == "circle" for element in marks) == 3


def test_a_bar_is_as_long_as_its_count() -> None:
    found = {"both": 2, "only": {"a": 3, "b": 5}, "neither": 10, "no_face": 0}
    widths = [float(element.get("width", "")) for element in drawn(agreement_bar("0.01", found)).iter("rect")]
    assert widths == pytest.approx([34, 51, 85, 170, 0])


def test_the_map_is_as_full_as_the_cosine() -> None:
    root = drawn(neighbour_map("c", ["a", "b"], [[0.7, -0.2], [None, 1.0]]))
    full = [
        element.get("style", "").rsplit(":", 1)[1]
        for element in root.iter("rect")
        if "fill-opacity" in element.get("style", "")
    ]
    assert full == ["0.700", "0.000", "0.000", "1.000"]
    words = [element.text for element in root.iter("text")]
    assert "?" in words
    assert "-.20" in words


def test_series_are_drawn_in_the_colour_of_the_people_they_name() -> None:
    found = styles(
        [
            "forgotten, adapter on",
            "forgotten, adapter off",
            "control person",
            "nearest",
            "forgotten, start 2",
            "random weights",
            "untouched base",
        ]
    )
    assert [colour for colour, *_ in found] == [
        "forget",
        "forget",
        "random",
        "nearest",
        "forget",
        "ink",
        "decoy",
    ]
    assert [dashed for _, dashed, _ in found] == [False, True, False, False, False, False, True]
    assert len(set(found)) == len(found)


def test_many_long_names_go_into_a_key_and_few_short_ones_beside_the_lines() -> None:
    attacks = audit()["attacks"]
    chart, key = curve_chart(attacks[0]["curves"][0])
    assert (key, "adapter off" in chart) == ([], True)
    chart, key = curve_chart(attacks[1]["curves"][0])
    assert [name for name, _ in key] == [line["name"] for line in attacks[1]["curves"][0]["series"]]


def test_a_line_that_ends_early_is_named_in_the_key() -> None:
    line = {"name": "forgotten", "x": [0, 5, 10], "y": [0.1, 0.2, 0.3], "low": None, "high": None}
    curve = {
        "title": "t",
        "x": "steps",
        "y": "ISM",
        "threshold": None,
        "series": [line, {**line, "name": "control", "y": [0.1, None, None]}],
    }
    assert [name for name, _ in curve_chart(curve)[1]] == ["forgotten", "control"]
    curve["series"][1]["y"] = [0.1, None, 0.2]
    assert curve_chart(curve)[1] == []


def test_hostile_words_stay_words() -> None:
    curve = {**audit()["attacks"][0]["curves"][0], "title": "<script>", "x": "<b>", "y": '"&'}
    chart, _ = curve_chart(curve)
    root = drawn(chart)
    assert root.get("aria-label") == "<script>"
    assert "<b>" in [element.text for element in root.iter("text")]


def test_a_long_word_is_a_line_of_its_own() -> None:
    assert wrapped("retained, random people", 9) == ["retained,", "random", "people"]
    assert wrapped("", 5) == [""]
