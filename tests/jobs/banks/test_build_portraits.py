"""A bank from real photographs: two official portraits each of 30 people, or of 120, ten years apart."""

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


@pytest.fixture(scope="module", params=[30, pytest.param(120, marks=pytest.mark.slow)])
def photos(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of so many people."""
    root = tmp_path_factory.mktemp("photos")
    for folder in sorted(folder for folder in PORTRAITS.iterdir() if folder.is_dir())[: request.param]:
        (root / folder.name).symlink_to(folder)
    return root


@pytest.fixture(scope="module")
def portraits(photos: Path, reader: Remembering, tmp_path_factory: pytest.TempPathFactory) -> BankBuild:
    out = tmp_path_factory.mktemp("portraits") / "bank.safetensors"
    return build_bank(photos, out, reader, reader.settings, workers=2)


@needs_faces
def test_portraits_are_identities_with_every_photograph_accounted_for(
    portraits: BankBuild, photos: Path
) -> None:
    people = len(list(photos.iterdir()))
    assert len(portraits.bank) == people
    assert portraits.photos == 2 * people
    assert len(portraits.bank.embeddings) + len(portraits.rejected) == 2 * people
    assert len({each.photo for each in portraits.rejected}) == len(portraits.rejected)
    assert portraits.doubles == []
    assert portraits.bank.settings["detector_sha256"]
    assert portraits.bank.width == 512


@needs_faces
def test_portraits_ten_years_apart_find_each_other(
    portraits: BankBuild, photos: Path, reader: Remembering
) -> None:
    young, old = [], []
    left_out = {each.photo for each in portraits.rejected}
    for folder in sorted(photos.iterdir()):
        pair = [folder / "2014.jpg", folder / "2024.jpg"]
        if not left_out & set(pair):
            young.append(reader.read(pair[0])[0].embedding)
            old.append(reader.read(pair[1])[0].embedding)
    cosines = torch.stack(young) @ torch.stack(old).T
    assert len(cosines) >= len(list(photos.iterdir())) * 110 / 120
    assert torch.equal(cosines.argmax(dim=1), torch.arange(len(cosines)))
    assert torch.equal(cosines.argmax(dim=0), torch.arange(len(cosines)))


@pytest.mark.slow
@needs_faces
def test_portraits_give_the_same_bank_again(portraits: BankBuild, photos: Path, tmp_path: Path) -> None:
    """Other sessions, other threads, another number of them."""
    fresh = FaceReader(PACK, threads=1)
    again = build_bank(photos, tmp_path / "bank.safetensors", fresh, fresh.settings, workers=3)
    assert again.bank.digest == portraits.bank.digest


@needs_faces
def test_portraits_in_one_folder_cluster_into_people(
    portraits: BankBuild, photos: Path, reader: Remembering, tmp_path: Path
) -> None:
    people, flat = sorted(photos.iterdir()), tmp_path / "flat"
    flat.mkdir()
    for number, folder in enumerate(people):
        for year in (2014, 2024):
            (flat / f"{year}-{number:03d}.jpg").symlink_to(folder / f"{year}.jpg")
    proposed = calibrate_photos(flat, reader, reader.settings, cache=tmp_path / ".cache")
    known = calibrate_photos(photos, reader, reader.settings, cache=tmp_path / ".known")
    assert proposed.eps == pytest.approx(known.eps, abs=0.1)
    made = build_bank(
        flat, tmp_path / "bank.safetensors", reader, reader.settings, ClusterSettings(eps=proposed.eps)
    )
    kept = {each.photo for each in portraits.rejected}
    assert made.photos == 2 * len(people)
    assert len(made.bank.embeddings) + len(made.rejected) == 2 * len(people)
    assert len(made.bank) >= len(people) * 110 / 120 - len(kept)
    # Nobody shares a cluster with somebody else: each holds the two portraits of one person.
    assert {len(made.bank.of(identity)) for identity in made.bank.ids} == {2}
    for identity in made.bank.ids:
        cosines = (portraits.bank.centroids @ made.bank.of(identity).T).argmax(dim=0)
        assert len(set(cosines.tolist())) == 1
