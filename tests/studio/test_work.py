"""What the pages show, made by the jobs on a tiny base."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from piu_lora.adapter import active
from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank
from piu_lora.jobs.request.session import Session
from piu_lora.studio.bench import BaseChoice, Bench
from piu_lora.studio.elements import render
from piu_lora.studio.queue import Cancelled, Job
from piu_lora.studio.visitors import Visitor
from piu_lora.studio.work.explore import BankMap, Drawn, Look, Walk, draw_work, map_work, walk_work
from piu_lora.studio.work.forget import Forgotten, Wish, forget_work
from piu_lora.studio.work.stack import Checked, check_work
from tests.tiny import FAST


@pytest.fixture(scope="module")
def bench(pipe: StableDiffusionPipeline, bank: IdentityBank) -> Bench:
    opened = Bench(BaseChoice(base="tiny"))
    opened._session = Session(pipe, bank)
    opened.people = bank.ids
    opened.ready.set()
    return opened


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Visitor:
    return Visitor("k" * 32, tmp_path_factory.mktemp("visitor"))


def done(title: str, work: object) -> Job:
    job = Job(title, work)  # type: ignore[arg-type]
    job.work(job)
    return job


@pytest.fixture(scope="module")
def forgotten(bench: Bench, visitor: Visitor, bank: IdentityBank) -> Job:
    wish = Wish(bank.ids[0], (), "closed-encoder", evaluate=False, settings=FAST)
    return done("forget", forget_work(bench, visitor, wish))


def test_a_first_look_and_a_folder_to_take_along(
    bench: Bench, visitor: Visitor, forgotten: Job, bank: IdentityBank
) -> None:
    one = forgotten.result
    assert isinstance(one, Forgotten)
    assert len(one.looks) == 3
    assert bank.ids[0] not in [pair.label for pair in one.neighbours]
    assert one.looks[0].before != one.looks[0].after
    folder, name = visitor.downloads[forgotten.key]
    assert (folder / "forget.json").is_file()
    assert one.adapter in name
    page = render("forget", one=one, key="abc", likeness=None, verification=None)
    assert page.count('type="range"') == 3
    assert 'href="studio/download/abc.zip"' in page
    assert str(folder) not in page
    assert bench.times.words("closed-encoder").endswith("here")
    assert active(bench.open().pipe) == {}


def test_cancelled_at_the_first_look_nothing_is_left(
    bench: Bench, visitor: Visitor, forgotten: Job, bank: IdentityBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, adapters = set(visitor.folder.rglob("*")), dict(visitor.adapters)
    job = Job(
        "forget",
        forget_work(bench, visitor, Wish(bank.ids[1], (), "closed-encoder", evaluate=False, settings=FAST)),
    )
    open_bar = job.progress

    def progress(label: str, total: int, done: int = 0) -> object:
        if label == "draw":
            job.cancel()
        return open_bar(label, total, done)

    monkeypatch.setattr(job, "progress", progress)
    with pytest.raises(Cancelled):
        job.work(job)
    assert set(visitor.folder.rglob("*")) == before
    assert visitor.adapters == adapters
    assert active(bench.open().pipe) == {}


def test_exploring_gives_the_pipeline_back_bare(
    bench: Bench, visitor: Visitor, forgotten: Job, bank: IdentityBank
) -> None:
    look = Look((forgotten.result.adapter,), bank.ids[0], 0.5, steps=2)
    drawn = done("draw", draw_work(bench, visitor, look)).result
    walk = done("walk", walk_work(bench, visitor, look, bank.ids[2])).result
    assert isinstance(drawn, Drawn)
    assert isinstance(walk, Walk)
    assert walk.neighbour == bank.ids[2]
    assert [pair.label for pair in walk.pairs][0::6] == ["0 %", "100 %"]
    assert active(bench.open().pipe) == {}
    page = render("explore", kind="walk", one=walk)
    assert '<span class="quiet">alike' not in page  # no recognizer here, no figure
    with pytest.raises(BadInput, match="no place for the face"):
        done("draw", draw_work(bench, visitor, replace(look, prompt="a photo")))


def test_strength_nought_changes_nobody(bench: Bench, visitor: Visitor, forgotten: Job) -> None:
    look = Look((forgotten.result.adapter,), bench.people[0], 0.0, steps=2)
    drawn = done("draw", draw_work(bench, visitor, look)).result
    assert all(pair.before == pair.after for pair in drawn.pairs)


def test_a_negative_strength_is_warned_of() -> None:
    page = render("explore", kind="drawn", one=Drawn("somebody", -0.5, ()))
    assert "brings the forgotten person out" in page
    assert "warning" not in render("explore", kind="drawn", one=Drawn("somebody", 0.5, ()))


def test_the_map_has_everybody_and_the_forgotten_person_changed_most(
    bench: Bench, visitor: Visitor, forgotten: Job, bank: IdentityBank
) -> None:
    one = done("map", map_work(bench, visitor, Look((forgotten.result.adapter,), bank.ids[0]))).result
    assert isinstance(one, BankMap)
    assert sorted(point.row for point in one.points) == list(range(len(bank)))
    assert one.points[-1].person == bank.ids[0]
    assert one.points[-1].share == 1.0
    places = torch.tensor(bench.map_places())
    assert places.min() == 0
    assert places.max() == 1


def test_a_check_has_the_people_of_the_adapters_first(
    bench: Bench, visitor: Visitor, forgotten: Job, bank: IdentityBank
) -> None:
    wish = Wish(bank.ids[3], (), "closed-encoder", evaluate=False, settings=FAST)
    other = done("forget", forget_work(bench, visitor, wish)).result
    one = done("check", check_work(bench, visitor, [forgotten.result.adapter, other.adapter])).result
    assert isinstance(one, Checked)
    assert [column.name for column in one.columns[:2]] == [bank.ids[0], bank.ids[3]]
    assert all(not column.own for column in one.columns[2:])
    assert len(one.lines) == 3
    assert one.lines[0].changes[0] > one.lines[0].changes[1]
    assert one.lines[2].label == f"{bank.ids[0]} + {bank.ids[3]}"
    assert len(one.hurt) == min(4, len(one.columns) - 2)
    assert all(f"most by {bank.ids[0]}" in pair.label or bank.ids[3] in pair.label for pair in one.hurt)
    assert active(bench.open().pipe) == {}


def test_somebody_in_photographs_is_drawn_without_them(
    bench: Bench, visitor: Visitor, bank: IdentityBank, tmp_path: Path
) -> None:
    dropped = tmp_path / "dropped.npy"  # embeddings, since no recognizer is here
    np.save(dropped, bank.of(bank.ids[5]).numpy())
    wish = Wish("", (dropped,), "closed-encoder", evaluate=False, settings=FAST)
    one = done("forget", forget_work(bench, visitor, wish)).result
    dropped.unlink()
    assert bank.ids[5] not in [pair.label for pair in one.neighbours]  # the same person
    file = Path(visitor.adapters[one.adapter].person)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent != visitor.adapters[one.adapter].path
    look = Look((one.adapter,), "the person", steps=2, file=file)
    assert done("draw", draw_work(bench, visitor, look)).result.person == "the person"
    walk = done("walk", walk_work(bench, visitor, look)).result
    assert walk.neighbour in bank.ids
