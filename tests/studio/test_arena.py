"""An arena in the studio: its points, and whose faces a point stands for."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline

from piu_lora.errors import BadInput
from piu_lora.evidence import Cell, comparison
from piu_lora.evidence.comparison import rows_of
from piu_lora.identity import IdentityBank
from piu_lora.jobs.arena.arena import Arena, enter_arena, shared_settings
from piu_lora.jobs.arena.cells import CellStore
from piu_lora.jobs.arena.contender import Contender
from piu_lora.jobs.request.session import Session
from piu_lora.studio.bench import BaseChoice, Bench
from piu_lora.studio.chart import _apart, plane
from piu_lora.studio.pages.arena import _shown
from piu_lora.studio.queue import Job
from piu_lora.studio.work.arena import ArenaView, _typical, arena_work, faces_work
from tests.tiny import FAMILY

FIGURES = dict.fromkeys(comparison.FIGURES, 0.9)


def cell(variant: str, person: int, forget: float, **settings: object) -> Cell:
    figures = {"conditioning": {**FIGURES, "forget": forget}}
    return Cell(variant, person, 42, 1.0, None, 10, figures, {}, settings)


@pytest.fixture
def folder(bank: IdentityBank, tmp_path: Path) -> Path:
    config = shared_settings(FAMILY).updated(
        {"anchor": {"rule": "nearest"}, "evaluation": {"steps": 2, "nearest": 2}}
    )
    arena = Arena("tiny", None, None, None, None, "auto", config)
    enter_arena(tmp_path / "arena", arena.digest(bank, None), config, create=True)
    store = CellStore(tmp_path / "arena")
    settings = Contender("closed-kv").settings(config, FAMILY)
    for person, forget in enumerate((0.1, 0.3, 0.9)):
        store.add(cell("closed-kv", person, forget, **settings))
    store.add(cell("closed-kv solve.ridge=2", 0, 0.5))
    store.add(cell("untouched", 0, 1.0))
    return tmp_path / "arena"


def done(work: object, result: object = None) -> Job:
    job = Job("a job", work, result=result)  # type: ignore[arg-type]
    job.work(job)
    return job


def test_every_contender_is_a_point_and_one_method_in_strengths_a_curve(folder: Path) -> None:
    job = done(arena_work(folder))
    assert isinstance(job.result, ArenaView)
    assert job.result.variants == ["closed-kv", "closed-kv solve.ridge=2", "untouched"]
    text = _shown(job)
    assert text.count('class="spot ours"') == 4  # two contenders in two pictures
    assert text.count("<polyline") == 2
    with pytest.raises(BadInput, match="holds no arena"):
        done(arena_work(folder.parent))


def test_less_of_the_forgotten_stands_further_left_and_more_of_others_further_up() -> None:
    rows = rows_of([cell("untouched", 0, 1.0), cell("piu", 0, 0.2)])
    untouched, ours = plane(rows, "nearest").spots
    assert ours.x < untouched.x
    assert (untouched.kind, ours.kind) == ("untouched", "ours")
    unmeasured = rows_of([replace(cell("piu", 0, 0.2), figures={"one": {**FIGURES, "forget": None}})])
    assert plane(unmeasured, "nearest").spots == ()


def test_marks_on_each_other_are_drawn_apart_and_others_where_they_stand() -> None:
    one, other, far = _apart([(100.0, 100.0), (100.0, 100.0), (200.0, 50.0)])
    assert math.dist(one, other) > 16
    assert math.dist(one, (100, 100)) < 10
    assert far == (200, 50)


def test_a_click_draws_the_person_nearest_to_the_median(
    folder: Path, pipe: StableDiffusionPipeline, bank: IdentityBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(BaseChoice(base="tiny"))
    bench._session = Session(pipe, bank)
    bench.ready.set()
    view = done(arena_work(folder)).result
    assert _typical(view, "closed-kv").person == 1
    faces = done(faces_work(bench, view, "closed-kv")).result.faces
    assert faces.note == ""
    assert faces.looks[0].before != faces.looks[0].after
    assert len(faces.neighbours) == 4
    shutil.rmtree(folder)
    with pytest.raises(BadInput, match="holds no arena"):
        done(faces_work(bench, view, "closed-kv"))
