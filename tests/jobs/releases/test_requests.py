"""Requests of a release: whom they may name, and what is written of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from piu_lora.errors import BadInput, Busy
from piu_lora.jobs.releases.manifest import Manifest
from piu_lora.jobs.releases.release import Release, open_release
from piu_lora.jobs.releases.requests import add_requests, withdraw_request
from piu_lora.jobs.request.request import bank_for

Begin = Callable[..., Release]


def test_nobody_is_added_where_one_of_them_cannot_be(begun: Begin) -> None:
    release = begun()
    with pytest.raises(BadInput, match="mini-9999"):
        add_requests(release, ["mini-0007", "mini-9999"])
    assert open_release(release.path).manifest.requests == ()
    assert not (release.path / "private").exists()


def test_nobody_is_added_twice_neither_by_id_nor_by_face(begun: Begin, tmp_path: Path) -> None:
    release = begun()
    (request,) = add_requests(release, "mini-0007")
    np.save(tmp_path / "again.npy", bank_for("mini", None).of("mini-0007").numpy())
    for again in ("mini-0007", tmp_path / "again.npy"):
        with pytest.raises(BadInput, match=rf"request {request.id} \(pending\) is about the same person"):
            add_requests(release, again)
    withdraw_request(release, request.id)
    (once_more,) = add_requests(release, "mini-0007")
    assert once_more.id != request.id


@pytest.mark.parametrize(
    ("until", "message"),
    [("tomorrow", "until = 'tomorrow' is no date"), ("2001-01-01", "until = '2001-01-01' is over already")],
)
def test_a_date_must_come(begun: Begin, until: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        add_requests(begun(), "mini-0007", until=until)


def test_a_pending_request_is_withdrawn_at_once(begun: Begin) -> None:
    release = begun()
    (request,) = add_requests(release, "mini-0007")
    assert withdraw_request(release, request.id[:4]).state == "withdrawn"
    assert not list((release.path / "private").iterdir())
    with pytest.raises(BadInput, match=f"request {request.id} is withdrawn already"):
        withdraw_request(release, request.id)
    with pytest.raises(BadInput, match="there is no request 'zzzz'"):
        withdraw_request(release, "zzzz")


def test_one_command_at_a_time(begun: Begin) -> None:
    release = begun()
    with release.claimed(None), pytest.raises(Busy, match="another run"):
        add_requests(open_release(release.path), "mini-0007")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read"),
        ('{"format": "piu_lora.release/1"}', "lacks 'created'"),
        ('{"current": NaN}', "NaN"),
    ],
)
def test_a_damaged_manifest_says_so(begun: Begin, text: str, message: str) -> None:
    release = begun()
    (release.path / "release.json").write_text(text)
    with pytest.raises(BadInput, match=message):
        open_release(release.path)


def test_what_is_no_release_says_how_to_make_one(tmp_path: Path, begun: Begin) -> None:
    with pytest.raises(BadInput, match=r"is no release: it has no release\.json"):
        open_release(tmp_path)
    release = begun()
    with pytest.raises(BadInput, match="exists already"):
        begun()
    loaded = Manifest.load(release.path)
    assert loaded.model_dump(mode="json") == release.manifest.model_dump(mode="json")
