"""Photographs of one person: who is left out, who is refused, and what the user hears of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from piu_lora.errors import BadInput
from piu_lora.identity import RecognizerId, Rejected, gather, normalize
from piu_lora.identity.gather import settle
from piu_lora.identity.pictures import UnusablePhoto

WIDTH = 16
FAKE = RecognizerId("fake", "00")


@dataclass(frozen=True)
class FakeFace:
    embedding: torch.Tensor


@dataclass(frozen=True)
class FakeReader:
    """Knows every photograph by name: its faces, or why there is none."""

    known: dict[str, list[torch.Tensor] | str]
    id: RecognizerId = FAKE

    def read(self, path: Path) -> Sequence[FakeFace]:
        content = self.known[path.name]
        if isinstance(content, str):
            raise UnusablePhoto(path, content)
        return [FakeFace(row) for row in content]

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    @property
    def photos(self) -> list[Path]:
        return [Path("photos") / name for name in self.known]


def look(person: int, seed: int) -> torch.Tensor:
    """A face of somebody; two of one person are at a cosine of about 0.97, of two people at about 0."""
    noise = 0.04 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(100 * person + seed))
    return normalize((torch.eye(WIDTH)[person] + noise)[None])[0]


def names(photos: Sequence[Path]) -> list[str]:
    return [photo.name for photo in photos]


def test_photographs_of_one_person_are_all_kept_in_order(caplog: pytest.LogCaptureFixture) -> None:
    reader = FakeReader({f"{name}.jpg": [look(0, seed)] for seed, name in enumerate("cab")})
    found = gather(reader, reader.photos, 0.3)
    assert names(found.photos) == ["c.jpg", "a.jpg", "b.jpg"]
    assert torch.equal(found.embeddings, torch.stack([look(0, seed) for seed in range(3)]))
    assert found.rejected == ()
    assert caplog.text == ""


def test_somebody_else_is_left_out_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    reader = FakeReader({"a.jpg": [look(0, 0)], "other.jpg": [look(1, 0)], "b.jpg": [look(0, 1)]})
    found = gather(reader, reader.photos, 0.3)
    assert names(found.photos) == ["a.jpg", "b.jpg"]
    assert torch.equal(found.embeddings, torch.stack([look(0, 0), look(0, 1)]))
    assert found.rejected == (
        Rejected(Path("photos/other.jpg"), "somebody else (cosine below 0.3 to the others)"),
    )
    assert (
        "1 of 3 photographs left out: 'photos/other.jpg': somebody else (cosine below 0.3 to the others)"
        in caplog.text
    )


def test_unusable_photographs_are_left_out_with_their_reasons(caplog: pytest.LogCaptureFixture) -> None:
    reader = FakeReader(
        {"blank.jpg": "no face found", "a.jpg": [look(0, 0)], "b.jpg": [look(0, 1)], "cut.jpg": "truncated"}
    )
    found = gather(reader, reader.photos, 0.3)
    assert names(found.photos) == ["a.jpg", "b.jpg"]
    assert [(each.photo.name, each.reason) for each in found.rejected] == [
        ("blank.jpg", "no face found"),
        ("cut.jpg", "truncated"),
    ]
    assert (
        "2 of 4 photographs left out: 'photos/blank.jpg': no face found; 'photos/cut.jpg': truncated"
        in caplog.text
    )


def test_two_groups_of_equal_size_are_refused_by_name() -> None:
    reader = FakeReader(
        {f"{person}-{seed}.jpg": [look(person, seed)] for person in (0, 1) for seed in (0, 1)}
    )
    with pytest.raises(
        BadInput,
        match=(
            r"different people .*cosine >= 0\.3.*'photos/0-0\.jpg', .*'photos/1-1\.jpg'; take the others out"
        ),
    ):
        gather(reader, reader.photos, 0.3)


def test_two_photographs_of_two_people_are_refused() -> None:
    reader = FakeReader({"a.jpg": [look(0, 0)], "b.jpg": [look(1, 0)]})
    with pytest.raises(BadInput, match="different people"):
        gather(reader, reader.photos, 0.3)


def test_links_reach_further_than_a_cosine() -> None:
    """The first and the last are unlike, and are linked by those between."""
    angles = torch.linspace(0, torch.pi / 2, 4)
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    reader = FakeReader({f"{place}.jpg": [row] for place, row in enumerate(rows)})
    assert len(gather(reader, reader.photos, 0.8).photos) == 4
    with pytest.raises(BadInput, match="different people"):
        gather(reader, reader.photos, 0.9)


def test_the_cosine_decides_who_is_left_out() -> None:
    near = normalize((look(0, 0) + 2.3 * look(1, 0))[None])[0]
    assert 0.3 < float(near @ look(0, 0)) < 0.5
    reader = FakeReader({"a.jpg": [look(0, 0)], "b.jpg": [look(0, 1)], "near.jpg": [near]})
    assert names(gather(reader, reader.photos, 0.3).photos) == ["a.jpg", "b.jpg", "near.jpg"]
    assert names(gather(reader, reader.photos, 0.5).photos) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("others", [{}, {"blank.jpg": "no face found"}])
def test_one_usable_photograph_is_enough(others: dict[str, str]) -> None:
    reader = FakeReader({"a.jpg": [look(0, 0)], **others})
    found = gather(reader, reader.photos, 0.3)
    assert names(found.photos) == ["a.jpg"]
    assert found.embeddings.shape == (1, WIDTH)


def test_no_usable_photograph_lists_every_reason() -> None:
    reader = FakeReader({"blank.jpg": "no face found", "cut.jpg": "truncated", "empty.jpg": "empty file"})
    with pytest.raises(BadInput) as error:
        gather(reader, reader.photos, 0.3)
    assert "none of 3 photographs is usable" in str(error.value)
    for name, reason in reader.known.items():
        assert f"'photos/{name}': {reason}" in str(error.value)


def test_a_stranger_in_a_group_photograph_is_no_reason_to_list_it(caplog: pytest.LogCaptureFixture) -> None:
    reader = FakeReader(
        {"a.jpg": [look(0, 0)], "party.jpg": [look(3, 0), look(0, 1), look(4, 0)], "b.jpg": [look(0, 2)]}
    )
    found = gather(reader, reader.photos, 0.3)
    assert names(found.photos) == ["a.jpg", "party.jpg", "b.jpg"]
    assert torch.equal(found.embeddings, torch.stack([look(0, seed) for seed in range(3)]))
    assert found.rejected == ()
    assert "left out" not in caplog.text


def test_a_group_photograph_of_strangers_is_listed_once() -> None:
    reader = FakeReader(
        {"a.jpg": [look(0, 0)], "strangers.jpg": [look(3, 0), look(4, 0)], "b.jpg": [look(0, 2)]}
    )
    assert names([each.photo for each in gather(reader, reader.photos, 0.3).rejected]) == ["strangers.jpg"]


def test_settling_says_nothing_and_keeps_earlier_rejections(caplog: pytest.LogCaptureFixture) -> None:
    earlier = Rejected(Path("blank.jpg"), "no face found")
    faces = [(Path("a.jpg"), look(0, 0)), (Path("other.jpg"), look(1, 0)), (Path("b.jpg"), look(0, 1))]
    result = settle(faces, 0.3, [earlier])
    assert result is not None
    assert names(result.photos) == ["a.jpg", "b.jpg"]
    assert names([each.photo for each in result.rejected]) == ["blank.jpg", "other.jpg"]
    assert settle(faces[:2], 0.3) is None
    assert caplog.text == ""
