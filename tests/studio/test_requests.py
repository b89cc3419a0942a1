"""The page Requests: what it does to a release, and that it names nobody."""

from pathlib import Path

import pytest

from piu_lora.errors import BadInput
from piu_lora.jobs.releases import apply as apply_module
from piu_lora.jobs.releases.apply import Applied
from piu_lora.jobs.releases.manifest import CheckRecord, VersionRecord
from piu_lora.jobs.releases.release import open_release
from piu_lora.studio.bench import BaseChoice, Bench
from piu_lora.studio.elements import render
from piu_lora.studio.queue import Job
from piu_lora.studio.visitors import Visitor
from piu_lora.studio.work.requests import (
    ReleaseView,
    add_work,
    apply_work,
    begin_work,
    open_work,
    withdraw_work,
)

WHO = "mini-0007"


def done(work: object) -> ReleaseView:
    job = Job("a job", work)  # type: ignore[arg-type]
    job.work(job)
    assert isinstance(job.result, ReleaseView)
    return job.result


@pytest.fixture
def bench() -> Bench:
    return Bench(BaseChoice())


@pytest.fixture
def folder(bench: Bench, tmp_path: Path) -> Path:
    done(begin_work(bench, tmp_path / "release"))
    return tmp_path / "release"


def page(view: ReleaseView) -> str:
    text = render("requests", one=view, again="key")
    assert WHO not in text
    assert str(view.folder) not in text
    return text


def test_requests_come_and_go_and_nobody_is_named(bench: Bench, folder: Path) -> None:
    assert "Nobody has asked yet" in page(done(open_work(folder)))
    view = done(add_work(bench, folder, WHO, (), "2999-01-31"))
    assert view.counts == "1 pending"
    (request,) = view.open
    assert request.id in page(view)
    assert "2999-01-31" in page(view)
    with pytest.raises(BadInput, match="is about the same person already"):
        done(add_work(bench, folder, WHO, (), ""))
    view = done(withdraw_work(folder, request.id))
    assert view.counts == "1 withdrawn"
    assert view.open == []
    assert open_release(folder).identity(request) == ""


def test_a_folder_that_is_no_release_is_refused(bench: Bench, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no release"):
        done(open_work(tmp_path))
    with pytest.raises(BadInput, match="exists already"):
        done(begin_work(bench, folder))


def test_the_gate_stands_open_where_it_is_missed(
    bench: Bench, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = done(add_work(bench, folder, WHO, (), "")).open[0]
    checks = (
        CheckRecord(name="forget_ism", text="ISM of them", value=0.1, limit=0.5, relation="<=", passed=True),
        CheckRecord(
            name="nearest_ism", text="ISM of others", value=0.4, limit=0.9, relation=">=", passed=False
        ),
    )
    version = VersionRecord(
        number=1,
        state="failed",
        made="2026-01-01T00:00:00+00:00",
        adapter_id="ab" * 8,
        weights_sha256="",
        requests=(request.id,),
        measured=1,
        checks=checks,
    )
    report = open_release(folder).report_folder(1) / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("a report")
    monkeypatch.setattr(apply_module, "apply_requests", lambda *_, **__: Applied(version))
    visitor = Visitor("k" * 32, tmp_path)
    view = done(apply_work(bench, visitor, folder, quick=True))
    assert view.words == "version 1 does not stand; the one before stays current"
    assert visitor.reports[view.report][1] == report
    text = page(view)
    assert "The gate: not passed" in text
    assert text.index("ISM of others") < text.index("1 of 2 checks passed") < text.index("ISM of them")
