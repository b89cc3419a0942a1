"""A bank from real photographs: two official portraits each of 120 people, ten years apart."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from piu_lora.identity import FaceReader
from piu_lora.identity.pictures import UnusablePhoto
from piu_lora.jobs.banks.build import BankBuild, ClusterSettings, build_bank, calibrate_photos
from tests.photos import PACK, PORTRAITS, needs_faces


class Remembering:
    """A reader that embeds each photograph once, however often it is asked and whatever its name."""

    def __init__(self, reader: FaceReader) -> None:
        self._reader, self.id, self.settings = reader, reader.id, reader.settings
        self._known: dict[str, Any] = {}

    def read(self, path: Path) -> Sequence[Any]:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest not in self._known:
            try:
                self._known[digest] = self._reader.read(path)
            except UnusablePhoto as error:
                self._known[digest] = error.reason
        found = self._known[digest]
        if isinstance(found, str):
            raise UnusablePhoto(path, found)
        return found

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        return self._reader.embed(faces)


@pytest.fixture(scope="module")
def reader() -> Remembering:
    return Remembering(FaceReader(PACK, threads=1))


@pytest.fixture(scope="module")
def portraits(reader: Remembering, tmp_path_factory: pytest.TempPathFactory) -> BankBuild:
    out = tmp_path_factory.mktemp("portraits") / "bank.safetensors"
    return build_bank(PORTRAITS, out, reader, reader.settings, workers=2)


@needs_faces
def test_portraits_are_120_identities_with_every_photograph_accounted_for(portraits: BankBuild) -> None:
    assert len(portraits.bank) == 120
    assert portraits.photos == 240
    assert len(portraits.bank.embeddings) + len(portraits.rejected) == 240
    assert len({each.photo for each in portraits.rejected}) == len(portraits.rejected)
    assert portraits.doubles == []
    assert portraits.bank.settings["detector_sha256"]
    assert portraits.bank.width == 512


@needs_faces
def test_portraits_ten_years_apart_find_each_other(portraits: BankBuild, reader: Remembering) -> None:
    young, old = [], []
    left_out = {each.photo for each in portraits.rejected}
    for folder in sorted(PORTRAITS.iterdir()):
        pair = [folder / "2014.jpg", folder / "2024.jpg"]
        if folder.is_dir() and not left_out & set(pair):
            young.append(reader.read(pair[0])[0].embedding)
            old.append(reader.read(pair[1])[0].embedding)
    cosines = torch.stack(young) @ torch.stack(old).T
    assert len(cosines) >= 110
    assert torch.equal(cosines.argmax(dim=1), torch.arange(len(cosines)))
    assert torch.equal(cosines.argmax(dim=0), torch.arange(len(cosines)))


@pytest.mark.slow
@needs_faces
def test_portraits_give_the_same_bank_again(portraits: BankBuild, tmp_path: Path) -> None:
    """Other sessions, other threads, another number of them."""
    fresh = FaceReader(PACK, threads=1)
    again = build_bank(PORTRAITS, tmp_path / "bank.safetensors", fresh, fresh.settings, workers=3)
    assert again.bank.digest == portraits.bank.digest


@needs_faces
def test_portraits_in_one_folder_cluster_into_people(
    portraits: BankBuild, reader: Remembering, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, folder in enumerate(sorted(each for each in PORTRAITS.iterdir() if each.is_dir())):
        for year in (2014, 2024):
            (flat / f"{year}-{number:03d}.jpg").symlink_to(folder / f"{year}.jpg")
    proposed = calibrate_photos(flat, reader, reader.settings, cache=tmp_path / ".cache")
    known = calibrate_photos(PORTRAITS, reader, reader.settings, cache=tmp_path / ".known")
    assert proposed.eps == pytest.approx(known.eps, abs=0.1)
    made = build_bank(
        flat, tmp_path / "bank.safetensors", reader, reader.settings, ClusterSettings(eps=proposed.eps)
    )
    kept = {each.photo for each in portraits.rejected}
    assert made.photos == 240
    assert len(made.bank.embeddings) + len(made.rejected) == 240
    assert len(made.bank) >= 110 - len(kept)
    # Nobody shares a cluster with somebody else: each holds the two portraits of one person.
    assert {len(made.bank.of(identity)) for identity in made.bank.ids} == {2}
    for identity in made.bank.ids:
        cosines = (portraits.bank.centroids @ made.bank.of(identity).T).argmax(dim=0)
        assert len(set(cosines.tolist())) == 1
