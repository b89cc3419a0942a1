"""Versions of a release: who is in them, when they stand, and what a crash leaves."""

import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from piu_lora import forget
from piu_lora.adapter import Ledger, read_adapter
from piu_lora.config import ForgetConfig
from piu_lora.errors import BadInput, Incompatible
from piu_lora.evidence import Policy
from piu_lora.identity import IdentityBank
from piu_lora.jobs.releases import apply as apply_module
from piu_lora.jobs.releases.acceptance import intact_check
from piu_lora.jobs.releases.apply import Applied, apply_requests
from piu_lora.jobs.releases.release import Release, open_release
from piu_lora.jobs.releases.requests import add_requests, withdraw_request
from piu_lora.jobs.releases.status import release_status
from piu_lora.jobs.request.request import bank_for
from piu_lora.model import find_family
from piu_lora.model.factors import Factors, concatenated

WHO = ("mini-0007", "mini-0501", "mini-0010")
LENIENT = Policy.only("lenient", forget_ism=1.0)
IMPOSSIBLE = Policy.only("impossible", nearest_ism=2.0)
Begin = Callable[..., Release]
Asked = list[list[str]]


def bank() -> IdentityBank:
    return bank_for("mini", None)


def applied(release: Release, *, policy: Policy = LENIENT, **options: Any) -> Applied:
    return apply_requests(release, policy=policy, **options)


def dense(factors: Factors) -> torch.Tensor:
    return factors.up.float() @ factors.down.float()


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same change, bit by bit."""
    first, second = read_adapter(one).change, read_adapter(other).change
    return first.keys() == second.keys() and all(
        torch.equal(getattr(first[module], side), getattr(second[module], side))
        for module in first
        for side in ("up", "down")
    )


def test_the_life_of_a_release(begun: Begin, evaluated: Asked, ledger: Ledger) -> None:
    release = begun()
    first, second = add_requests(release, WHO[:2], ledger=ledger)
    result = applied(release, ledger=ledger)
    assert result.version is not None
    assert (result.version.state, result.version.requests) == ("accepted", (first.id, second.id))
    assert evaluated == [list(WHO[:2])]
    assert read_adapter(release.current).receipt.people == 2
    gates = [read_adapter(release.member_folder(one)).receipt.solution["gates"] for one in (first, second)]
    assert not set(gates[0]) & set(gates[1])

    # Somebody joins, somebody leaves: only the newcomer is solved for, and what stays is as it was.
    (third,) = add_requests(release, WHO[2], ledger=ledger)
    members = [release.member_folder(one) for one in (second, third)]
    before = read_adapter(members[0]).receipt
    assert withdraw_request(release, first.id, ledger=ledger).state == "leaving"
    result = applied(release, ledger=ledger)
    assert result.version is not None
    assert result.version.requests == (second.id, third.id)
    assert read_adapter(members[0]).receipt == before
    change = concatenated([read_adapter(folder).change for folder in members], [1.0, 1.0])
    now = read_adapter(release.current).change
    for module in change:
        torch.testing.assert_close(dense(now[module]), dense(change[module]), rtol=1e-6, atol=1e-5)

    # What is left of the one who withdrew: an entry of the ledger.
    assert not (release.path / "members" / first.id).exists()
    assert not list((release.path / "private").glob(f"{first.id}*"))
    states = {entry.adapter_id: entry.state for entry in ledger.entries()}
    assert states == {
        release.manifest.requests[0].adapter_id: "withdrawn",
        release.manifest.requests[1].adapter_id: "merged",
        release.manifest.requests[2].adapter_id: "merged",
        release.manifest.versions[0].adapter_id: "withdrawn",
        release.manifest.versions[1].adapter_id: "active",
    }
    assert applied(release, ledger=ledger).version is None

    # The last ones leave: nothing is current any more.
    for request in (second, third):
        withdraw_request(release, request.id, ledger=ledger)
    result = applied(release, ledger=ledger)
    assert result.version is not None
    assert (result.version.state, result.version.adapter_id) == ("accepted", "")
    assert not release.current.is_symlink()
    assert release_status(open_release(release.path))["states"] == {"withdrawn": 3}
    assert not [entry for entry in ledger.entries() if entry.state != "withdrawn"]


def test_a_version_that_fails_is_kept_aside(begun: Begin, evaluated: Asked, ledger: Ledger) -> None:
    release = begun()
    add_requests(release, WHO[0], ledger=ledger)
    applied(release, ledger=ledger)
    stands = release.current.readlink()
    (pending,) = add_requests(release, WHO[1], ledger=ledger)
    failed = applied(release, policy=IMPOSSIBLE, ledger=ledger).version
    assert failed is not None
    assert (failed.number, failed.state) == (2, "failed")
    assert {check.name for check in failed.missed} == {"nearest_ism"}
    assert read_adapter(release.failed_folder(2)).id == failed.adapter_id
    assert release.current.readlink() == stands
    assert release.manifest.request(pending.id).state == "pending"
    assert ledger.entry(failed.adapter_id) is None
    # Its number is used up; with other limits the same requests are answered, by the adapters that are made.
    made = read_adapter(release.member_folder(pending)).id
    third = applied(release, ledger=ledger).version
    assert third is not None
    assert (third.number, third.state) == (3, "accepted")
    assert read_adapter(release.member_folder(pending)).id == made


def test_a_version_that_harms_more_than_the_one_before_fails(
    begun: Begin, evaluated: Asked, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, stored_report: object
) -> None:
    release = begun()
    add_requests(release, WHO[0], ledger=ledger)
    applied(release, ledger=ledger)
    add_requests(release, WHO[1], ledger=ledger)
    monkeypatch.setattr(apply_module, "_earlier_report", lambda _: stored_report)
    worse = applied(release, worse=-0.01, ledger=ledger).version
    assert worse is not None
    assert worse.state == "failed"
    assert {check.name for check in worse.missed} == {"regression"}
    assert all(check.before is not None for check in worse.missed)
    same = applied(release, worse=0.0, ledger=ledger).version
    assert same is not None
    assert same.state == "accepted"


def test_nothing_is_kept_where_that_was_asked_for(begun: Begin, evaluated: Asked, ledger: Ledger) -> None:
    release = begun(keep="nothing")
    add_requests(release, WHO[0], ledger=ledger)
    applied(release, ledger=ledger)
    (active,) = release.manifest.in_state("active")
    assert release.identity(active) == ""
    assert [entry.identity for entry in ledger.entries()] == ["", ""]
    assert WHO[0].encode() not in b"".join(
        path.read_bytes() for path in release.path.rglob("*") if path.is_file()
    )
    # The next version forgets them all the same, and says that it could not measure it.
    add_requests(release, WHO[1], ledger=ledger)
    version = applied(release, ledger=ledger).version
    assert version is not None
    assert (len(version.requests), version.measured, version.state) == (2, 1, "accepted")
    assert evaluated == [[WHO[0]], [WHO[1]]]


@pytest.mark.parametrize("step", ["merge_adapters", "evaluate", "_take"])
def test_a_crash_at_any_step_is_made_good_by_the_next_run(
    begun: Begin, evaluated: Asked, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    release = begun()
    add_requests(release, WHO[0], ledger=ledger)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(apply_module, step, crash)
        with pytest.raises(KeyboardInterrupt):
            applied(release, ledger=ledger)
    assert ledger.entries() == []
    version = applied(open_release(release.path), ledger=ledger).version
    assert version is not None
    assert (version.number, version.state) == (1, "accepted")
    assert sorted(entry.state for entry in ledger.entries()) == ["active", "merged"]


def test_what_a_kill_between_manifest_and_folders_leaves_is_settled(
    begun: Begin, evaluated: Asked, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = begun()
    (request,) = add_requests(release, WHO[0], ledger=ledger)
    with monkeypatch.context() as patched:
        patched.setattr(Release, "settle", lambda *_: None)
        applied(release, ledger=ledger)
    assert not release.current.exists()
    withdraw_request(release, request.id, ledger=ledger)  # any command settles it
    assert read_adapter(release.current).id == release.manifest.versions[0].adapter_id
    assert sorted(entry.state for entry in ledger.entries()) == ["active", "merged"]


def test_a_request_of_photographs_outlives_them(begun: Begin, evaluated: Asked, tmp_path: Path) -> None:
    release = begun()
    path = tmp_path / "jane-doe.npy"
    np.save(path, bank().of(WHO[0])[:3].numpy())
    (request,) = add_requests(release, path)
    path.unlink()
    assert applied(release).version is not None
    assert stat.S_IMODE((release.path / "private").stat().st_mode) == 0o700
    kept = Path(release.identity(request))
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not [path for path in release.path.rglob("*") if "jane" in path.name]
    assert "jane" not in (release.path / "release.json").read_text()


def test_requests_lapse(begun: Begin, evaluated: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    release = begun()
    monkeypatch.setattr("piu_lora.jobs.releases.requests.today", lambda: date(2030, 1, 1))
    (request,) = add_requests(release, WHO[0], until="2030-06-01")
    applied(release)
    assert applied(release).version is None
    monkeypatch.setattr("piu_lora.jobs.releases.requests.today", lambda: date(2030, 6, 1))
    result = applied(release)
    assert [lapsed.id for lapsed in result.lapsed] == [request.id]
    assert release.manifest.request(request.id).state == "withdrawn"


def test_neurons_run_out_in_plain_words(begun: Begin, quick: ForgetConfig, evaluated: Asked) -> None:
    every = [f"2.{neuron}" for neuron in range(382)]
    release = begun(config=quick.updated({"gate": {"occupied": every}}))
    add_requests(release, WHO[0])
    with pytest.raises(BadInput, match=r"gate neurons are needed, and 2 of the layer's 384 are free"):
        applied(release)


def test_a_method_that_does_not_add_up_makes_everybody_anew(begun: Begin, evaluated: Asked) -> None:
    pairs = ("closed.retained=64", "closed.near=16", "closed.mixtures=4")
    config = ForgetConfig.preset(find_family("mini"), "closed-encoder").updated_from_pairs(pairs)
    with pytest.raises(BadInput, match="keep = 'nothing' does not go with the method 'closed-encoder'"):
        begun("other", config=config, keep="nothing")
    release = begun(config=config)
    add_requests(release, WHO[:2])
    version = applied(release).version
    assert version is not None
    receipt = read_adapter(release.current).receipt
    assert (receipt.method, receipt.people) == ("closed-encoder", 2)
    assert not (release.path / "members").exists()


def test_another_base_is_refused(begun: Begin, evaluated: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    release = begun()
    add_requests(release, WHO[0])
    applied(release)
    add_requests(release, WHO[1])
    reference = read_adapter(release.current).receipt.base
    with pytest.raises(Incompatible, match="the release was made for the base 'arc2face-mini'"):
        release.require_base(replace(reference, attn2_sha256="0" * 64))


def test_two_members_on_one_neuron_are_seen(quick: ForgetConfig, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one", "other")]
    for path, who in zip(paths, WHO, strict=False):
        forget(who, "mini", path, config=quick, evaluate=False)
    one, other = map(read_adapter, paths)
    both = replace(one, change=concatenated([one.change, other.change], [1.0, 1.0]))
    assert not intact_check(both, [one, other]).passed
    assert intact_check(one, [one]).passed
    assert not same(*paths)
