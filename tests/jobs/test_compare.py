"""The arena on the embedded base, as small as it can be."""

import csv
import json
from pathlib import Path

import pytest

from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.jobs.compare import Comparison, compare, contenders, drawn_people, shared_settings
from piu_lora.model import mini

TINY = {"evaluation": {"forget_images": 2, "retain_images": 2, "nearest": 1, "anchor_images": 1, "steps": 2}}
SMALL = {"closed": {"retained": 256, "near": 64}}
METHODS = ["untouched", "closed-encoder", "uce"]


def config() -> ForgetConfig:
    return shared_settings("mini").updated(TINY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arena") / "out"


@pytest.fixture(scope="module")
def first(folder: Path) -> Comparison:
    variants = ["closed-encoder closed.retained=256 closed.near=64"]
    return compare(folder, ["untouched", "uce"], people=2, seeds=1, variants=variants, config=config())


def test_every_contender_has_a_row_for_each_recognizer(first: Comparison, folder: Path) -> None:
    names = ["untouched", "uce", "closed-encoder closed.retained=256 closed.near=64"]
    assert [(row.variant, row.recognizer) for row in first.rows] == [(n, r) for n in names for r in ("conditioning", "evaluating")]
    assert {row.people for row in first.rows} == {2}
    untouched = first.rows[0]
    assert [untouched.figures[group] for group in ("forget", "random", "nearest", "anchor")] == [(1.0, 1.0, 1.0)] * 4
    assert all(row.stored_bytes > 0 and row.seconds > 0 for row in first.rows[2:])
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "comparison.md").read_text().count("| uce |") == 2
    lines = list(csv.DictReader((folder / "comparison.csv").open()))
    assert [line["variant"] for line in lines] == [row.variant for row in first.rows]
    document = json.loads((folder / "comparison.json").read_text())
    assert document["people"] == 2
    assert {(each["variant"], each["against"]) for each in document["differences"]} == {(name, "uce") for name in (names[0], names[2])}
    assert "Less `uce`, on the same people and seeds" in (folder / "comparison.md").read_text()


def test_the_others_are_compared_with_whom_one_says(first: Comparison, folder: Path) -> None:
    found = compare(folder, ["untouched", "uce"], people=2, seeds=1, config=config(), against="untouched", report_only=True)
    assert {(each.variant, each.against) for each in found.differences} == {("uce", "untouched")}
    assert found.differences[0].figures["forget"][0] < 0
    with pytest.raises(BadInput, match="--against 'esd' is not among what is compared: untouched, uce"):
        compare(folder, ["untouched", "uce"], people=2, seeds=1, config=config(), against="esd", report_only=True)


def test_what_is_there_is_not_done_again(first: Comparison, folder: Path) -> None:
    cells = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (folder / "cells").iterdir()}
    next(iter(cells)).unlink()
    again = compare(folder, ["untouched", "uce"], people=2, seeds=1, config=config())
    assert len(again.cells) == 4
    same = [path for path in cells if path.exists() and path.stat().st_mtime_ns == cells[path][0]]
    assert len(same) >= len(cells) - 1


def test_a_report_of_what_is_there_runs_nothing_and_counts_the_cells(first: Comparison, folder: Path) -> None:
    before = sorted(path.name for path in (folder / "cells").iterdir())
    found = compare(folder, ["untouched", "uce", "esd"], people=4, seeds=2, config=config(), report_only=True)
    assert [(row.variant, row.people, row.cells) for row in found.rows[::2]] == [("untouched", 2, 2), ("uce", 2, 2)]
    assert "met only the first of these people" in (folder / "comparison.md").read_text()
    assert sorted(path.name for path in (folder / "cells").iterdir()) == before
    with pytest.raises(BadInput, match="holds no cell of esd"):
        compare(folder, ["esd"], people=4, seeds=2, config=config(), report_only=True)


def test_nobody_is_named(first: Comparison, folder: Path) -> None:
    ids = drawn_people(mini.conditioning_bank(), "mini", 2)
    for path in folder.rglob("*"):
        assert not any(who in path.name or (path.is_file() and who.encode() in path.read_bytes()) for who in ids)


def test_another_arena_is_refused(first: Comparison, folder: Path) -> None:
    with pytest.raises(BadInput, match="another base, bank or settings"):
        compare(folder, ["uce"], people=2, seeds=1, config=config().updated({"evaluation": {"steps": 3}}))


def test_people_are_not_those_of_the_tuning() -> None:
    bank = mini.conditioning_bank()
    people = drawn_people(bank, "mini", 100)
    assert not {bank.index(who) for who in people} & mini.TUNED_ON
    assert people[:20] == drawn_people(bank, "mini", 20)
    with pytest.raises(BadInput, match="--people 5000 is out of range"):
        drawn_people(bank, "mini", 5000)


def test_variants() -> None:
    names = [each.name for each in contenders(["piu", "esd"], ["objective.eta=0,1", "esd:eta=2"], ["closed-kv closed.eta=0 closed.rank=4"])]
    assert names == ["piu", "esd", "piu objective.eta=0", "piu objective.eta=1", "esd eta=2", "closed-kv closed.eta=0 closed.rank=4"]


@pytest.mark.parametrize(
    ("methods", "vary", "variants", "message"),
    [
        (["nothing"], [], [], "unknown method 'nothing'; known: untouched"), (["piu"], ["objective.eta"], [], "has no values"),
        (["piu"], ["esd:lr=1"], [], "not among the methods"), (["piu"], [], ["nobody a=1"], "begins with no method"),
    ],
)  # fmt: skip
def test_contenders_that_cannot_be(methods, vary, variants, message) -> None:
    with pytest.raises(BadInput, match=message):
        contenders(methods, vary, variants)


def test_settings_that_do_not_exist_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"unknown setting 'objective\.etta'"):
        compare(tmp_path / "out", ["piu"], people=1, seeds=1, vary=["objective.etta=1"], config=config())
    assert not list(tmp_path.iterdir())
