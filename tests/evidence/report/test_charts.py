"""What charts draw against the plain formula, and labels that never overlap."""

import itertools
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piu_lora.evidence.report.curves import curve_chart, styles
from piu_lora.evidence.report.labels import settings_axis, spread, wrapped
from piu_lora.evidence.report.maps import agreement_bar, neighbour_map
from piu_lora.evidence.report.measures import Agreement
from piu_lora.evidence.report.panels import plane, score_chart, sweep_chart
from piu_lora.evidence.report.sections import Curve, Recognizer
from piu_lora.evidence.report.svg import WIDTH, Chart, Margins, paint
from piu_lora.groups import GROUP_WORDS
from piu_lora.palette import DARK, LIGHT
from tests.evidence.report.example import recognizer, report

EVALUATION, AUDIT = report().evaluation, report().audit
assert EVALUATION is not None
assert AUDIT is not None
SEEN = EVALUATION.recognizers["conditioning"]


def drawn(chart: str | None) -> ET.Element:
    assert chart is not None
    return ET.fromstring(str(chart))


def of_class(root: ET.Element, name: str) -> list[ET.Element]:
    return [element for element in root.iter() if name in element.get("class", "").split()]


def first_path(element: ET.Element) -> ET.Element:
    found = element if element.tag == "path" else element.find(".//path")
    assert found is not None
    return found


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


def corners(element: ET.Element) -> list[tuple[float, float]]:
    """The places of a path without a transform."""
    values = numbers(first_path(element).get("d", ""))
    return list(zip(values[::2], values[1::2], strict=True))


def place(element: ET.Element) -> tuple[float, float]:
    """Where a mark stands."""
    x, y = numbers(first_path(element).get("transform", ""))
    return x, y


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=2, max_size=20))
def test_an_axis_holds_its_values_and_its_ticks_are_even(values: list[float]) -> None:
    chart = Chart("t")
    chart.axes.update_datalim([(value, value) for value in values])
    chart.settle()
    low, high = chart.axes.get_xlim()
    slack = 1e-6 * (high - low)
    assert low <= min(values) + slack
    assert high >= max(values) - slack
    ticks = [tick for tick in chart.axes.get_xticks() if low - slack <= tick <= high + slack]
    steps = [right - left for left, right in itertools.pairwise(ticks)]
    assert 1 <= len(steps) <= 8
    assert max(steps) - min(steps) < 1e-6 * max(steps)


def test_settings_are_numbers_from_the_first_to_the_last_or_names_in_their_order() -> None:
    chart = Chart("t")
    assert settings_axis(chart, [0.13, 0.4, 0.87]) == [0.13, 0.4, 0.87]
    assert chart.axes.get_xlim() == (0.13, 0.87)
    assert settings_axis(chart, ["a", "b", "c", "a"]) == [0, 1, 2, 0]
    assert chart.axes.get_xlim() == (-0.5, 2.5)


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
    chart = Chart("t", "x", "y", height=200, margins=Margins(50, 50, 20, 30))
    chart.axes.set(xlim=(0, 2), ylim=(0, 4))
    chart.points([0.5], [1.0], "forget")
    (mark,) = of_class(drawn(chart.svg()), "point")
    assert place(mark) == pytest.approx((50 + (WIDTH - 100) * 0.25, 200 - 30 - 150 * 0.25))
    assert "var(--forget)" in first_path(mark).get("style", "")


def test_a_missing_value_breaks_the_line_and_is_not_drawn_as_zero() -> None:
    chart = Chart("t", "x", "y")
    chart.axes.set(xlim=(0, 3), ylim=(0, 1))
    chart.line([0, 1, 2, 3], [0.5, None, 0.5, 0.6], "forget")
    (line,) = of_class(drawn(chart.svg()), "line")
    path = first_path(line).get("d", "")
    assert path.count("M") >= 1
    assert path.count("L") == 1
    zero = chart.at(0, 0)[1]
    assert all(abs(y - zero) > 1 for _, y in corners(line))


def test_every_calibrated_threshold_is_drawn_at_its_cosine_and_named() -> None:
    root = drawn(score_chart("conditioning", SEEN))
    words = [element.text for element in root.iter("text")]
    xs = sorted(corners(element)[0][0] for element in of_class(root, "rule"))
    levels = sorted(threshold.cosine for threshold in SEEN.thresholds.values() if threshold.cosine)
    assert all(
        f"FAR {name}: {level:.3f}" in words
        for name, level in zip(("1e-4", "1e-3", "1e-2"), reversed(levels), strict=True)
    )
    gaps = [(xs[1] - xs[0]) / (levels[1] - levels[0]), (xs[2] - xs[1]) / (levels[2] - levels[1])]
    assert gaps[0] == pytest.approx(gaps[1], rel=0.02)


def test_a_refused_threshold_is_not_drawn() -> None:
    refusing = Recognizer(**recognizer("only evaluates", 0.0, False))
    assert len(of_class(drawn(score_chart("evaluating", refusing)), "rule")) == 2


def test_charts_have_a_name_for_screen_readers() -> None:
    assert EVALUATION is not None
    assert SEEN.neighbours is not None
    agreement = (EVALUATION.agreement or {})["0.01"]
    assert agreement is not None
    charts = [
        plane(EVALUATION.recognizers),
        score_chart("c", SEEN),
        sweep_chart(EVALUATION.sweeps[0], "conditioning", 0.4, "0.001"),
        neighbour_map("c", SEEN.neighbours.labels, SEEN.neighbours.before),
        agreement_bar("0.01", agreement),
    ]
    for chart in charts:
        root = drawn(chart)
        assert root.get("role") == "img"
        assert root.get("aria-label") == root.findtext("title")
        assert root.get("aria-label")


def test_the_plane_has_a_mark_for_each_retained_group_and_recognizer() -> None:
    assert EVALUATION is not None
    marks = of_class(drawn(plane(EVALUATION.recognizers)), "point")
    assert len(marks) == 2 * 3
    outlines = [first_path(mark).get("d") for mark in marks]
    assert sorted(outlines.count(outline) for outline in set(outlines)) == [3, 3]


def test_a_bar_is_as_long_as_its_count() -> None:
    agreement = Agreement(both=2, only={"a": 3, "b": 5}, neither=10, no_face=0)
    parts = of_class(drawn(agreement_bar("0.01", agreement)), "part")
    ends = [[x for x, _ in corners(part)] for part in parts]
    assert [max(xs) - min(xs) for xs in ends] == pytest.approx([34, 51, 85, 170, 0])
    assert [part.findtext("title") for part in parts][:2] == ["both: 2 of 20", "only a: 3 of 20"]


def test_the_map_is_as_full_as_the_cosine() -> None:
    root = drawn(neighbour_map("c", ["a", "b"], [[0.7, -0.2], [None, 1.0]]))
    looks = [first_path(cell).get("style", "") for cell in of_class(root, "cell")]
    assert ["fill: none" in look for look in looks] == [False, True, True, False]
    assert "fill: var(--heat); fill-opacity: 0.7" in looks[0]
    assert "fill: var(--heat)" in looks[3]
    assert "fill-opacity" not in looks[3]
    words = [element.text for element in root.iter("text")]
    assert "?" in words
    assert "-.20" in words


def test_nothing_of_a_drawing_refers_to_another_place_or_brings_a_colour_of_its_own() -> None:
    assert EVALUATION is not None
    text = str(plane(EVALUATION.recognizers)) + str(score_chart("c", SEEN))
    assert not re.search(r"\bid=|href|url\(|<use|<defs|#[0-9a-f]{6}", text)


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
    assert AUDIT is not None
    attacks = AUDIT.attacks
    chart, key = curve_chart(attacks[0].curves[0])
    assert (key, "adapter off" in chart) == ([], True)
    chart, key = curve_chart(attacks[1].curves[0])
    assert [name for name, _ in key] == [line.name for line in attacks[1].curves[0].series]


def test_a_line_that_ends_early_is_named_in_the_key() -> None:
    line: dict[str, Any] = {
        "name": "forgotten",
        "x": [0, 5, 10],
        "y": [0.1, 0.2, 0.3],
        "low": None,
        "high": None,
    }
    curve: dict[str, Any] = {
        "title": "t",
        "x": "steps",
        "y": "ISM",
        "threshold": None,
        "series": [line, {**line, "name": "control", "y": [0.1, None, None]}],
    }
    assert [name for name, _ in curve_chart(Curve(**curve))[1]] == ["forgotten", "control"]
    curve["series"][1]["y"] = [0.1, None, 0.2]
    assert curve_chart(Curve(**curve))[1] == []


def test_hostile_words_stay_words() -> None:
    assert AUDIT is not None
    curve = AUDIT.attacks[0].curves[0].model_copy(update={"title": "<script>", "x": "<b>", "y": '"& $x_1$'})
    chart, _ = curve_chart(curve)
    root = drawn(chart)
    assert root.get("aria-label") == "<script>"
    assert {"<b>", '"& $x_1$'} <= {element.text for element in root.iter("text")}


def test_a_long_word_is_a_line_of_its_own() -> None:
    assert wrapped("retained, random people", 9) == ["retained,", "random", "people"]
    assert wrapped("", 5) == [""]


def test_every_group_has_a_colour() -> None:
    for group in GROUP_WORDS:
        assert paint(group)
        assert group in LIGHT.keys() & DARK.keys()
