"""Builds of a bank that were interrupted: what is read again, and what the cache says."""

import stat
from pathlib import Path

import pytest
import torch

from piu_lora.adapter import claimed
from piu_lora.errors import Busy
from piu_lora.identity import normalize
from piu_lora.jobs.banks.build import ClusterSettings, build_bank
from tests.jobs.banks.fake_photos import FAKE_SETTINGS, FakeReader, face, people, photograph
from tests.jobs.banks.test_build import build


def test_an_interrupted_build_reads_only_the_rest(tmp_path: Path) -> None:
    photos, out = people(tmp_path / "photos", 50, 3), tmp_path / "made" / "bank.safetensors"
    first, second = FakeReader(stop_after=130), FakeReader()
    with pytest.raises(KeyboardInterrupt):
        build_bank(photos, out, first, FAKE_SETTINGS, workers=1)
    assert not out.exists()
    (cache,) = out.parent.iterdir()
    assert cache.name == ".bank.safetensors.photos"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600

    resumed = build_bank(photos, out, second, FAKE_SETTINGS, workers=1)
    assert len(second.seen) == 150 - 130
    whole = build_bank(photos, tmp_path / "whole.safetensors", FakeReader(), FAKE_SETTINGS)
    assert resumed.bank.digest == whole.bank.digest
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert [file.name for file in out.parent.iterdir()] == ["bank.safetensors"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made", "photos", "whole.safetensors"]


def test_two_builds_of_one_bank_do_not_meet(tmp_path: Path) -> None:
    photos, out = people(tmp_path / "photos"), tmp_path / "bank.safetensors"
    with claimed(out), pytest.raises(Busy, match=r"another run is writing to .*bank\.safetensors"):
        build(photos, out)
    build(photos, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank.safetensors", "photos"]


def test_a_damaged_cache_is_read_anew(tmp_path: Path) -> None:
    photos, out = people(tmp_path / "photos"), tmp_path / "bank.safetensors"
    (tmp_path / ".bank.safetensors.photos").write_bytes(b"no database at all" * 99)
    build(photos, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank.safetensors", "photos"]


def test_a_folder_without_photographs_beside_others_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = people(tmp_path / "photos")
    (photos / "nobody").mkdir()
    build(photos, tmp_path / "bank.safetensors")
    assert "the folder 'nobody' holds no photographs" in caplog.text


def test_the_cache_names_nobody(tmp_path: Path) -> None:
    root = tmp_path / "secret-place"
    for number in range(70):
        photograph(root / "jane-doe-identity" / f"holiday-{number:03d}.jpg", face(1, number))
    photograph(root / "jane-doe-identity" / "a-broken.jpg", reason="no face found")
    with pytest.raises(KeyboardInterrupt):
        build(root, tmp_path / "out.bank", FakeReader(stop_after=66))
    content = (tmp_path / ".out.bank.photos").read_bytes()
    assert b"no face found" in content  # it does hold what was read
    for name in (
        b"jane",
        b"doe-identity",
        b"holiday",
        b"broken",
        b".jpg",
        b"secret-place",
        str(tmp_path).encode(),
    ):
        assert name not in content


def test_what_another_reader_read_is_not_used(tmp_path: Path) -> None:
    photos, out = people(tmp_path / "photos", 50, 3), tmp_path / "bank.safetensors"
    with pytest.raises(KeyboardInterrupt):
        build_bank(photos, out, FakeReader(stop_after=130), FAKE_SETTINGS, workers=1)
    other = FakeReader()
    build_bank(photos, out, other, {**FAKE_SETTINGS, "several": "all"}, workers=1)
    assert len(other.seen) == 150


def test_settings_of_the_clustering_may_change_between_runs(tmp_path: Path) -> None:
    photos, out = people(tmp_path / "photos", 50, 3), tmp_path / "bank.safetensors"
    with pytest.raises(KeyboardInterrupt):
        build_bank(photos, out, FakeReader(stop_after=130), FAKE_SETTINGS, workers=1)
    again = FakeReader()
    build_bank(photos, out, again, FAKE_SETTINGS, ClusterSettings(linked=0.4), workers=1)
    assert len(again.seen) == 20


def test_a_photograph_changed_since_is_read_again(tmp_path: Path) -> None:
    photos, out = people(tmp_path / "photos", 50, 3), tmp_path / "bank.safetensors"
    with pytest.raises(KeyboardInterrupt):
        build_bank(photos, out, FakeReader(stop_after=130), FAKE_SETTINGS, workers=1)
    photograph(photos / "person-000" / "000.jpg", face(0, 99))
    again = FakeReader()
    made = build_bank(photos, out, again, FAKE_SETTINGS, workers=1)
    assert len(again.seen) == 21
    assert torch.allclose(made.bank.of("person-000")[0], normalize(torch.tensor([face(0, 99)]))[0], atol=1e-6)
