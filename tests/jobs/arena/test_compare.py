"""The arena on the embedded base, as small as it can be."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.jobs.arena import arena as job
from piu_lora.jobs.arena.arena import drawn_people, shared_settings
from piu_lora.jobs.arena.cells import CELLS
from piu_lora.jobs.arena.compare import compare, contenders
from piu_lora.jobs.arena.comparison import Comparison
from piu_lora.jobs.arena.contender import Contender, known_methods
from piu_lora.jobs.request.readers import SecondRecognizer
from piu_lora.model import find_family, mini
from piu_lora.unlearn import ClosedConfig

TINY = {"evaluation": {"forget_images": 2, "retain_images": 2, "nearest": 1, "anchor_images": 1, "steps": 1}}
SMALL = {"closed": {"retained": 256, "near": 64}}
METHODS = ["untouched", "closed-encoder", "uce"]


def config() -> ForgetConfig:
    return shared_settings(find_family("mini")).updated(TINY)


def stored_lines(folder: Path) -> list[str]:
    return gzip.decompress((folder / CELLS).read_bytes()).decode().splitlines()


def write_lines(folder: Path, lines: list[str]) -> None:
    (folder / CELLS).write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arena") / "out"


@pytest.fixture(scope="module")
def first(folder: Path) -> Comparison:
    variants = ["closed-encoder closed.retained=256 closed.near=64"]
    return compare(folder, ["untouched", "uce"], people=2, seeds=1, variants=variants, config=config())


def test_every_contender_has_a_row_for_each_recognizer(first: Comparison, folder: Path) -> None:
    names = ["untouched", "uce", "closed-encoder closed.retained=256 closed.near=64"]
    assert [(row.variant, row.recognizer) for row in first.rows] == [
        (n, r) for n in names for r in ("conditioning", "evaluating")
    ]
    assert {row.people for row in first.rows} == {2}
    untouched = first.rows[0]
    assert [untouched.figures[group] for group in ("forget", "random", "nearest", "anchor")] == [
        (1.0, 1.0, 1.0)
    ] * 4
    assert all(row.stored_bytes > 0 and row.seconds > 0 for row in first.rows[2:])
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "comparison.md").read_text().count("| uce |") == 2
    lines = list(csv.DictReader((folder / "comparison.csv").open()))
    assert [line["variant"] for line in lines] == [row.variant for row in first.rows]
    document = json.loads((folder / "comparison.json").read_text())
    assert document["people"] == 2
    assert {(each["variant"], each["against"]) for each in document["differences"]} == {
        (name, "uce") for name in (names[0], names[2])
    }
    assert "Less `uce`, on the same people and seeds" in (folder / "comparison.md").read_text()


def test_the_others_are_compared_with_whom_one_says(first: Comparison, folder: Path) -> None:
    found = compare(
        folder,
        ["untouched", "uce"],
        people=2,
        seeds=1,
        config=config(),
        against="untouched",
        report_only=True,
    )
    assert {(each.variant, each.against) for each in found.differences} == {("uce", "untouched")}
    assert found.differences[0].figures["forget"][0] < 0
    with pytest.raises(BadInput, match="against = 'esd' is not among what is compared: untouched, uce"):
        compare(
            folder, ["untouched", "uce"], people=2, seeds=1, config=config(), against="esd", report_only=True
        )


def test_what_is_there_is_not_done_again(first: Comparison, folder: Path) -> None:
    lines = stored_lines(folder)
    write_lines(folder, lines[:-1])
    again = compare(folder, ["untouched", "uce"], people=2, seeds=1, config=config())
    assert len(again.cells) == 4
    assert set(lines[:-1]) <= set(stored_lines(folder))  # seconds and all: none was made anew
    assert len(stored_lines(folder)) == len(lines)


def test_a_report_of_what_is_there_runs_nothing_and_counts_the_cells(first: Comparison, folder: Path) -> None:
    before = (folder / CELLS).read_bytes()
    found = compare(folder, ["untouched", "uce", "esd"], people=4, seeds=2, config=config(), report_only=True)
    assert [(row.variant, row.people, row.cells) for row in found.rows[::2]] == [
        ("untouched", 2, 2),
        ("uce", 2, 2),
    ]
    assert "met only the first of these people" in (folder / "comparison.md").read_text()
    assert (folder / CELLS).read_bytes() == before
    with pytest.raises(BadInput, match="holds no cell of esd"):
        compare(folder, ["esd"], people=4, seeds=2, config=config(), report_only=True)


def test_nobody_is_named(first: Comparison, folder: Path) -> None:
    ids = drawn_people(mini.conditioning_bank(), find_family("mini"), 2)
    for path in folder.rglob("*"):
        assert not any(
            who in path.name or (path.is_file() and who.encode() in path.read_bytes()) for who in ids
        )
    assert not any(who in line for who in ids for line in stored_lines(folder))


def test_another_arena_is_refused(first: Comparison, folder: Path) -> None:
    with pytest.raises(BadInput, match="another base, bank or settings"):
        compare(folder, ["uce"], people=2, seeds=1, config=config().updated({"evaluation": {"steps": 3}}))


def test_people_are_not_those_of_the_tuning() -> None:
    bank = mini.conditioning_bank()
    people = drawn_people(bank, find_family("mini"), 100)
    assert not {bank.index(who) for who in people} & mini.TUNED_ON
    assert people[:20] == drawn_people(bank, find_family("mini"), 20)
    with pytest.raises(BadInput, match="people = 5000 is out of range"):
        drawn_people(bank, find_family("mini"), 5000)


def test_variants() -> None:
    names = [
        each.name
        for each in contenders(
            ["piu", "esd"], ["objective.eta=0,1", "esd:eta=2"], ["closed-kv closed.eta=0 closed.rank=4"]
        )
    ]
    assert contenders(["piu", "piu"], ["objective.eta=1,1"], ["piu"]) == contenders(
        ["piu"], ["objective.eta=1"]
    )
    assert names == [
        "piu",
        "esd",
        "piu objective.eta=0",
        "piu objective.eta=1",
        "esd eta=2",
        "closed-kv closed.eta=0 closed.rank=4",
    ]


@pytest.mark.parametrize(
    ("methods", "vary", "variants", "message"),
    [
        (["nothing"], [], [], "unknown method 'nothing'; known: untouched"),
        (["piu"], ["objective.eta"], [], "has no values"),
        (["piu"], ["esd:lr=1"], [], "not among the methods"),
        (["piu"], [], ["nobody a=1"], "begins with no method"),
    ],
)
def test_contenders_that_cannot_be(methods, vary, variants, message) -> None:
    with pytest.raises(BadInput, match=message):
        contenders(methods, vary, variants)


@pytest.mark.parametrize(
    ("vary", "variants", "message"),
    [
        (["objective.etta=1"], [], r"unknown setting 'objective\.etta'"),
        (["esd:stepz=3"], [], r"unknown setting 'esd\.stepz': did you mean esd\.steps\?"),
        (
            ["evaluation.steps=3"],
            [],
            "'piu evaluation.steps=3' varies evaluation, which all contenders share",
        ),
        (["decoys.count=3"], [], "'piu decoys.count=3' varies decoys, which no contender has"),
        ([], ["untouched a=1"], "'untouched a=1': the untouched base has no settings"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_runs(
    tmp_path: Path, vary, variants, message
) -> None:
    with pytest.raises(BadInput, match=message):
        compare(
            tmp_path / "out", ["piu", "esd"], people=1, seeds=1, vary=vary, variants=variants, config=config()
        )
    assert not list(tmp_path.iterdir())


def test_only_what_is_shared_is_set_for_all(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"the setting train is not shared by all contenders.*vary='train\.key=VALUE'"
    ):
        compare(
            tmp_path / "out", ["piu"], people=1, seeds=1, config=config().updated({"train": {"steps": 3}})
        )
    assert not list(tmp_path.iterdir())


def test_a_recognizer_with_gradients_is_the_embedded_bases() -> None:
    assert set(known_methods(find_family("mini"))) - set(known_methods(find_family("arc2face"))) == {
        "wid",
        "wid-official",
        "wid-anchor",
    }
    with pytest.raises(BadInput, match="wid needs a differentiable recognizer"):
        Contender("wid").settings(shared_settings(find_family("arc2face")), find_family("arc2face"))


def test_a_contender_with_anchors_of_its_own() -> None:
    """One who varies the anchor meets another case; evaluation and seed stay the arena's."""
    shared = config()
    (varied,) = contenders([], variants=["closed-kv anchor.rule=far-safe closed.rank=4"])
    own = varied.request_settings(shared, find_family("mini"))
    assert (own.anchor.rule, own.evaluation, own.section_of(ClosedConfig)) == (
        "far-safe",
        shared.evaluation,
        shared.section_of(ClosedConfig),
    )
    assert (
        Contender("closed-kv").request_settings(shared, find_family("mini"))
        == Contender("esd").request_settings(shared, find_family("mini"))
        == shared
    )
    assert varied.settings(shared, find_family("mini"))["closed"]["rank"] == 4


def test_the_anchor_that_is_varied_is_used(first: Comparison, folder: Path) -> None:
    variants = ["uce", "closed-encoder closed.retained=256 closed.near=64 anchor.rule=nearest"]
    found = compare(folder, [], people=2, seeds=1, variants=variants, config=config())
    varied = [cell for cell in found.cells if cell.variant == variants[1]]
    plain = [cell for cell in first.cells if cell.variant.endswith("closed.near=64")]
    for one, other in zip(varied, plain, strict=True):
        assert one.figures["evaluating"]["forget"] != other.figures["evaluating"]["forget"]
        assert one.figures["evaluating"]["random"] is not None


def test_a_cell_of_other_settings_is_run_again(first: Comparison, folder: Path) -> None:
    lines = stored_lines(folder)
    (place,) = (
        place
        for place, line in enumerate(lines)
        if (cell := json.loads(line))["variant"] == "uce" and not cell["person"]
    )
    settings = json.loads(lines[place])["settings"]
    write_lines(
        folder,
        [
            *lines[:place],
            json.dumps({**json.loads(lines[place]), "settings": {**settings, "erase": 1.0}}),
            *lines[place + 1 :],
        ],
    )
    assert len(compare(folder, ["uce"], people=2, seeds=1, config=config(), report_only=True).cells) == 1
    again = compare(folder, ["uce"], people=2, seeds=1, config=config())
    assert [cell.settings for cell in again.cells] == [settings] * 2
    content = (folder / CELLS).read_bytes()
    (folder / CELLS).write_bytes(content[:40])
    with pytest.raises(BadInput, match=r"cells\.jsonl\.gz' are damaged: .*; restore the file, or delete it"):
        compare(folder, ["uce"], people=2, seeds=1, config=config(), report_only=True)
    (folder / CELLS).write_bytes(content)


def test_the_report_does_not_depend_on_how_the_cells_are_kept(
    first: Comparison, folder: Path, tmp_path: Path
) -> None:
    """A folder with a file for each cell, as arenas were kept before, gives the same report to the byte."""
    earlier = tmp_path / "earlier"
    (earlier / "cells").mkdir(parents=True)
    (earlier / "arena.json").write_bytes((folder / "arena.json").read_bytes())
    for line in stored_lines(folder):
        cell = json.loads(line)
        name = cell["variant"].replace(" ", "_")
        (earlier / "cells" / f"{name}-{cell['person']:03d}-{cell['seed']}.json").write_text(line + "\n")
    variants = ["closed-encoder closed.retained=256 closed.near=64"]
    reports = [
        compare(
            place,
            ["untouched", "uce"],
            people=2,
            seeds=1,
            variants=variants,
            config=config(),
            report_only=True,
        )
        for place in (folder, earlier)
    ]
    assert len(reports[0].cells) == 6
    for one, other in zip(reports[0].files, reports[1].files, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert not (earlier / CELLS).exists()


def test_the_second_recognizer_that_is_given_is_the_one_that_judges(
    first: Comparison, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    """Here the conditioning one itself, which must find what it finds as the first."""
    given = {"second": "pack", "second_bank": "bank.safetensors"}
    monkeypatch.setattr(
        job,
        "open_second",
        lambda *_: SecondRecognizer(mini.conditioning_recognizer(), mini.conditioning_bank()),
    )
    (cell,) = compare(tmp_path / "out", ["uce"], people=1, seeds=1, config=config(), **given).cells
    assert cell.figures["evaluating"]["forget"] == pytest.approx(
        cell.figures["conditioning"]["forget"], rel=1e-6
    )
    (own,) = (each for each in first.cells if (each.variant, each.person) == ("uce", 0))
    assert own.figures["evaluating"]["forget"] != pytest.approx(
        cell.figures["evaluating"]["forget"], rel=1e-3
    )
    with pytest.raises(BadInput, match="holds an arena of another base, bank or settings"):
        compare(folder, ["uce"], people=1, seeds=1, config=config(), **given)


def test_a_second_recognizer_that_cannot_judge_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch
) -> None:
    with pytest.raises(BadInput, match="pass second=PACK and second_bank=FILE together"):
        compare(tmp_path / "out", ["uce"], people=1, seeds=1, config=config(), second="pack")
    whole = mini.evaluating_bank()
    fewer = IdentityBank(whole.embeddings[:15], whole.labels[:15], whole.ids[:5], whole.recognizer)
    monkeypatch.setattr(job, "open_second", lambda *_: SecondRecognizer(mini.evaluating_recognizer(), fewer))
    with pytest.raises(BadInput, match="holds other people than the bank"):
        compare(
            tmp_path / "out",
            ["uce"],
            people=1,
            seeds=1,
            config=config(),
            second="pack",
            second_bank="few.safetensors",
        )
    assert not list(tmp_path.iterdir())


def test_nothing_is_begun_for_a_report(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no arena; leave report_only=True out"):
        compare(tmp_path / "out", ["uce"], people=1, seeds=1, config=config(), report_only=True)
    assert not list(tmp_path.iterdir())
