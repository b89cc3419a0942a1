"""A request whose person stands in the bank under other ids, with real photographs."""

from pathlib import Path

import pytest
import torch

from piu_lora.config import ForgetConfig
from piu_lora.identity import FaceReader, IdentityBank
from piu_lora.identity.pictures import UnusablePhoto
from piu_lora.jobs.request.request import open_request
from tests.photos import FACES, PACK, needs_faces

pytestmark = [needs_faces, pytest.mark.slow]


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader(PACK, threads=1)


def photographs(reader: FaceReader, folder: Path, count: int) -> torch.Tensor:
    rows = []
    for path in sorted(folder.iterdir())[:count]:
        try:
            rows.append(reader.read(path)[0].embedding)
        except UnusablePhoto:
            continue
    return torch.stack(rows)


@pytest.fixture(scope="module")
def planted(reader: FaceReader) -> tuple[IdentityBank, list[Path]]:
    """Twenty strangers, and somebody under two ids with two photographs each; further ones of theirs."""
    folders = sorted(path for path in (FACES / "lfw").iterdir() if path.is_dir())
    person = next(folder for folder in folders if len(list(folder.iterdir())) >= 8)
    strangers = [folder for folder in folders if folder != person][:20]
    files = sorted(person.iterdir())
    own = torch.stack([reader.read(path)[0].embedding for path in files[:4]])
    parts = [*(photographs(reader, folder, 1) for folder in strangers), own[:2], own[2:]]
    labels = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part) for part in parts]))
    names = [f"s{number}" for number in range(len(strangers))] + ["one", "two"]
    return IdentityBank(torch.cat(parts), labels.to(torch.int32), names, reader.id), files[4:]


@pytest.mark.parametrize("count", [1, 3])
def test_both_ids_are_found_and_no_stranger(
    count: int,
    planted: tuple[IdentityBank, list[Path]],
    reader: FaceReader,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bank, files = planted
    for path in files[:count]:
        (tmp_path / path.name).symlink_to(path)
    config = ForgetConfig().updated({"anchor": {"rule": "nearest"}})
    request = open_request(tmp_path, bank, config, reader)
    assert [bank.ids[row] for row in request.left_out] == ["one", "two"]
    assert "under 2 ids" in caplog.text
    # What was in force before: a single photograph often lies below it to the person's own centroid.
    before = open_request(tmp_path, bank, config.updated({"split": {"same_person": 0.7}}), reader)
    assert set(before.left_out) <= set(request.left_out)
