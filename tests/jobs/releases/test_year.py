"""A year of a host: 60 requests in 12 versions, 5 withdrawals, 3 kills, one version that fails its checks."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from piu_lora.adapter import Ledger, read_adapter
from piu_lora.config import ForgetConfig
from piu_lora.evidence import Policy
from piu_lora.jobs.releases.apply import apply_requests
from piu_lora.jobs.releases.publish import push_release
from piu_lora.jobs.releases.release import Release, create_release, open_release
from piu_lora.jobs.releases.requests import add_requests, withdraw_request
from tests.hub import LoopbackHub

MONTHS, EACH = 12, 5
LENIENT = Policy.only("lenient", no_face=1.0)  # how well it forgets is measured elsewhere
IMPOSSIBLE = Policy.only("impossible", nearest_ism=2.0)
# Enough for the checks to be made; how well is measured elsewhere.
SETTINGS = (
    "evaluation.forget_images=5",
    "evaluation.retain_images=3",
    "evaluation.nearest=1",
    "evaluation.steps=2",
    "report.leak_images=0",
    "report.sweep_images=0",
)
REPO = "tester/a-year"


def killed(release: Release, ledger: Path, seconds: float) -> bool:
    """Run ``apply`` in a process of its own and kill it; whether it was still running."""
    code = (
        "from piu_lora import apply_requests, open_release, Ledger, Policy\n"
        f"apply_requests(open_release({str(release.path)!r}), ledger=Ledger({str(ledger)!r}), worse=1.0,\n"
        f"    policy=Policy.only('lenient', no_face=1.0), settings={SETTINGS!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def check(release: Release, ledger: Ledger) -> None:
    """Manifest, folders and ledger tell one story."""
    manifest = open_release(release.path).manifest
    current = manifest.version(manifest.current)
    assert current is not None
    assert read_adapter(release.current).id == current.adapter_id
    assert set(current.requests) == {request.id for request in manifest.in_state("active", "leaving")}
    members = {path.name for path in (release.path / "members").iterdir()}
    assert members >= set(current.requests)
    states = Counter(entry.state for entry in ledger.entries())
    assert states["active"] == 1
    assert states["merged"] == len(current.requests)
    assert ledger.entry(current.adapter_id) is not None
    assert not list(release.path.glob(".current*")) + list(release.path.glob("candidate"))


@pytest.mark.slow
def test_a_year_of_a_host(
    quick: ForgetConfig, tmp_path: Path, own_ledger: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_token("hf_writes", "tester")
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    draw, ledger = random.Random(0), Ledger(own_ledger)
    release = create_release(tmp_path / "release", "mini", config=quick, keep="nothing")
    people = [f"mini-{row:04d}" for row in draw.sample(range(400), MONTHS * EACH)]
    withdrawals, kills, took, failures = 0, 0, 20.0, 0
    for month in range(MONTHS):
        add_requests(release, people[month * EACH : (month + 1) * EACH], ledger=ledger)
        if month % 2 and withdrawals < 5:
            leaving = draw.choice(release.manifest.in_state("active"))
            withdraw_request(release, leaving.id, ledger=ledger)
            withdrawals += 1
        if month in (2, 5, 8):
            kills += killed(release, own_ledger, draw.uniform(0.3, 1.0) * took)
            release = open_release(release.path)
        if month == 6:
            version = apply_requests(
                release, policy=IMPOSSIBLE, worse=1.0, settings=SETTINGS, ledger=ledger
            ).version
            assert version is not None
            failures += version.state == "failed"
            check(release, ledger)
        begun = time.monotonic()
        apply_requests(release, policy=LENIENT, worse=1.0, settings=SETTINGS, ledger=ledger)
        took = time.monotonic() - begun
        check(release, ledger)
        push_release(release, REPO, ledger=ledger)
        pushed = json.loads(hub.read(REPO, "forget.json", f"v{release.manifest.current}"))
        assert pushed["adapter_id"] == read_adapter(release.current).id
    manifest = release.manifest
    assert (withdrawals, failures) == (5, 1)
    assert kills >= 1  # a kill may come too late on a quick machine
    assert Counter(request.state for request in manifest.requests) == {"active": 55, "withdrawn": 5}
    assert read_adapter(release.current).receipt.people == 55
    assert [entry.identity for entry in ledger.entries()] == [""] * len(ledger.entries())
    gates = [
        gate
        for request in manifest.in_state("active")
        for gate in read_adapter(release.member_folder(request)).receipt.solution["gates"]
    ]
    assert len(gates) == len(set(gates))
