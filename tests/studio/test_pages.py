"""What the forms take and refuse, and what stands while there is nothing to show."""

from pathlib import Path
from typing import Any

import pytest

from piu_lora.errors import BadInput
from piu_lora.studio.bench import BaseChoice, Bench
from piu_lora.studio.elements import render
from piu_lora.studio.queue import Job, WorkQueue
from piu_lora.studio.visitors import MadeAdapter, Visitor, Visitors

pytest.importorskip("gradio", reason="no Gradio here (pip install '.[studio]')")
from piu_lora.studio.pages.adapters import _opened
from piu_lora.studio.pages.base import Area, Studio

PUBLISHED = sorted((Path(__file__).parents[2] / "adapters").glob("mini-piu-*"))[0]


@pytest.fixture
def visitor(tmp_path: Path) -> Visitor:
    return Visitor("k" * 32, tmp_path)


def studio(tmp_path: Path, files: bool = True) -> Studio:
    bench = Bench(BaseChoice())
    bench.ready.set()
    return Studio(bench, WorkQueue(), Visitors(tmp_path), files)


def test_nothing_is_opened_before_the_base_is(visitor: Visitor, tmp_path: Path) -> None:
    early = studio(tmp_path)
    early.bench.ready.clear()
    with pytest.raises(BadInput, match="still being opened"):
        _opened(early, visitor, str(PUBLISHED), "")


def test_an_adapter_is_opened_by_its_folder_and_whom_it_forgets_stays_known(
    visitor: Visitor, tmp_path: Path
) -> None:
    key = _opened(studio(tmp_path), visitor, str(PUBLISHED), "")
    assert visitor.adapter(key).path == PUBLISHED
    visitor.adapters[key] = MadeAdapter(PUBLISHED, "mini-0007", "mini-0007, piu")
    _opened(studio(tmp_path), visitor, str(PUBLISHED), "")
    assert visitor.adapter(key).person == "mini-0007"


@pytest.mark.parametrize("name", ["", "/etc", "../adapters/one", str(PUBLISHED)])
def test_a_space_opens_no_folders(visitor: Visitor, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="Hub id"):
        _opened(studio(tmp_path, files=False), visitor, name, "")
    assert visitor.adapters == {}


def shown(visitor: Visitor, job: Job, tmp_path: Path) -> list[Any]:
    import gradio

    visitor.jobs["page"] = job
    with gradio.Blocks():
        area = Area(studio(tmp_path), "page", lambda job: "a result", coming="It comes here.")
    return area.update(visitor, {})


def test_while_there_is_nothing_to_show_the_page_says_what_comes(visitor: Visitor, tmp_path: Path) -> None:
    job = Job("draw somebody", lambda job: None)
    progress, _, result = shown(visitor, job, tmp_path)
    assert "Draw somebody" in progress
    assert "waiting" not in progress  # nobody is ahead
    assert "It comes here." in result
    job.show("faces")
    assert shown(visitor, job, tmp_path)[2] == "a result"


def test_what_went_wrong_tells_no_private_folder(visitor: Visitor, tmp_path: Path) -> None:
    job = Job("draw", lambda job: None, state="failed", error=f"{tmp_path / '01.jpg'} holds no face")
    progress, _, result = shown(visitor, job, tmp_path)
    assert "the private folder/01.jpg holds no face" in progress
    assert str(tmp_path) not in progress
    assert result == "a result"


def test_the_drop_box_says_its_limits() -> None:
    page = render("drop", largest=10_000_000, most=20)
    assert "up to 10 MB each and 20 in all" in page
    assert 'data-largest="10000000"' in page
