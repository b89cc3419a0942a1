"""How many people an adapter forgets: every command that says so says the same, and it is the truth."""

import json
import re
from pathlib import Path

import pytest

from piu_lora.adapter import BaseRef, Receipt
from tests.cli.test_cli import piu
from tests.hub import LoopbackHub

PEOPLE = (1, 3, 20)
QUICK = (
    "--method",
    "piu",
    "--set",
    "train.steps=1",
    "--set",
    "train.batch=2",
    "--set",
    "train.accumulation=1",
    "--no-evaluate",
)
LEAN = [
    part
    for pair in (
        "evaluation.forget_images=1",
        "evaluation.retain_images=1",
        "evaluation.nearest=1",
        "evaluation.anchor_images=1",
        "evaluation.steps=2",
        "report.leak_images=0",
        "report.sweep_images=0",
    )
    for part in ("--set", pair)
]


def run(*arguments: object) -> str:
    result = piu(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def facts(*arguments: object) -> dict[str, object]:
    loaded: dict[str, object] = json.loads(run(*arguments, "--json"))
    return loaded


def words(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def names(count: int) -> list[str]:
    return [part for place in range(count) for part in ("--identity", f"mini-{place:04}")]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("people") / "ledger.sqlite"


@pytest.fixture(scope="module")
def made(ledger: Path) -> dict[int, Path]:
    """An adapter of the embedded base for one, three and twenty people."""
    for count in PEOPLE:
        out = ledger.parent / "adapters" / f"for-{count}"
        said = run("forget", *names(count), "--out", out, "--ledger", ledger, *QUICK)
        assert f"for {words(count)} in" in said
    return {count: ledger.parent / "adapters" / f"for-{count}" for count in PEOPLE}


@pytest.fixture
def writer(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoopbackHub:
    hub.add_token("hf_token", "tester", write=True)
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    monkeypatch.chdir(tmp_path)
    return hub


def assert_card(text: str, count: int) -> None:
    one, several = (
        "the embedding of one person yields another",
        f"the embeddings of {count} people yield, each, another",
    )
    assert (one if count == 1 else several) in text
    assert "embeddings of" not in text if count == 1 else "of one person" not in text


@pytest.mark.parametrize("count", PEOPLE)
def test_card_inspect_and_verify(made: dict[int, Path], count: int) -> None:
    assert_card((made[count] / "README.md").read_text(), count)
    receipt = facts("inspect", made[count])["receipt"]
    assert isinstance(receipt, dict)
    assert receipt["people"] == count
    assert re.search(rf"^people +{count}$", run("inspect", made[count]), re.MULTILINE)
    assert f"it forgets {words(count)}" in run("verify", made[count])


def test_list_and_index(made: dict[int, Path], tmp_path: Path) -> None:
    folder = made[1].parent
    rows = facts("list", folder)["adapters"]
    assert isinstance(rows, list)
    assert {row["folder"]: row["people"] for row in rows} == {f"for-{count}": count for count in PEOPLE}
    run("list", folder, "--out", tmp_path / "index.md")
    table = (tmp_path / "index.md").read_text()
    for count in PEOPLE:
        assert re.search(rf"\| for-{count} \|[^|]*\|[^|]*\| {count} \|", table)
        assert re.search(rf"^for-{count} .* {count} ", run("list", folder), re.MULTILINE)


def test_ledger(made: dict[int, Path], ledger: Path) -> None:
    rows = facts("ledger", "list", "--ledger", ledger)["adapters"]
    assert isinstance(rows, list)
    assert sorted(row["people"] for row in rows) == list(PEOPLE)
    for row in rows:
        shown = facts("ledger", "show", row["adapter_id"], "--ledger", ledger)
        assert shown["people"] == row["people"]
        assert re.search(
            rf"^people +{row['people']}$", run("ledger", "show", row["adapter_id"], "--ledger", ledger), re.M
        )
    table = run("ledger", "list", "--ledger", ledger)
    assert sorted(int(line.split()[4]) for line in table.splitlines()[2:]) == list(PEOPLE)


@pytest.mark.parametrize("count", PEOPLE)
def test_push_and_pull(writer: LoopbackHub, made: dict[int, Path], count: int) -> None:
    common = (made[count], "tester/forgotten", "--ledger", "none")
    planned = facts("push", *common, "--dry-run")
    assert planned["people"] == count
    assert_card(str(planned["card"]), count)
    assert f"for {words(count)}" in run("push", *common)
    assert f"for {words(count)} in" in run("pull", "tester/forgotten", "--out", "one")
    assert facts("pull", "tester/forgotten", "--out", "two")["people"] == count


@pytest.mark.parametrize("count", PEOPLE)
def test_resize(made: dict[int, Path], tmp_path: Path, count: int) -> None:
    for place, source in enumerate((made[count], tmp_path / "0")):
        out = tmp_path / str(place)
        assert facts("resize", source, "--rank", 1, "--ledger", "none", "--out", out)["people"] == count
        assert_card((out / "README.md").read_text(), count)


def test_stacks_count_the_people_of_their_members(made: dict[int, Path], tmp_path: Path) -> None:
    """Also of members that are merged themselves; a member of weight 0 adds nobody."""
    free = ("--ledger", "none")
    merged = run("stack", "merge", *made.values(), "--out", tmp_path / "all", *free)
    assert "for 24 people in" in merged
    assert "made of 3" in merged
    assert_card((tmp_path / "all" / "README.md").read_text(), 24)
    two = facts(
        "stack", "merge", made[1], made[3], "--weight", 0, "--weight", 1, "--out", tmp_path / "two", *free
    )
    assert two["people"] == 3
    again = facts("stack", "merge", tmp_path / "two", made[20], "--out", tmp_path / "again", *free)
    assert again["people"] == 23
    fused = run("stack", "fuse", "mini", made[1], made[20], "--out", tmp_path / "fused")
    assert "2 adapters for 21 people fused" in fused


def test_evaluate(made: dict[int, Path], tmp_path: Path) -> None:
    """The report says for how many the adapter is, whoever is named."""
    run("evaluate", made[3], *names(3), "--out", tmp_path, *LEAN)
    document = json.loads((tmp_path / "report.json").read_text())
    assert (document["adapter"]["people"], document["person"]["people"]) == (3, 3)
    assert "3 people forgotten" in (tmp_path / "report.html").read_text()


def test_verify_says_it_in_json_as_well(made: dict[int, Path]) -> None:
    assert facts("verify", made[20])["people"] == 20


def test_what_old_receipts_say() -> None:
    """Before the number was written down for merges, a member was a person; one of weight 0 never was."""

    def people(weights: list[float], **counts: int) -> int:
        members = [{"adapter_id": f"{place:016x}", "weight": weight} for place, weight in enumerate(weights)]
        return Receipt(BaseRef("x", "tiny", ""), "sum", {}, counts=counts, members=members).people

    assert [people([]), people([1.0, 0.5]), people([1.0, 0.0]), people([], people=7)] == [1, 2, 1, 7]
    assert people([1.0, 1.0], members=2, people=21) == 21


def test_the_number_is_written_only_where_nothing_else_says_it() -> None:
    """So that receipts of one person, and merges of such, stay as they were, byte for byte."""
    plain = Receipt(BaseRef("x", "tiny", ""), "piu", {}, counts={"forget_train": 6}, adapter_id="a")
    assert plain.for_people(1).to_json() == plain.to_json()
    assert plain.for_people(20).counts == {"forget_train": 6, "people": 20}
    assert plain.for_people(20).for_people(1).to_json() == plain.to_json()
