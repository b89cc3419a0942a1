"""Photographs that lost their orientation tag, and small faces in large ones."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from piu_lora.identity import FaceReader, gather
from piu_lora.identity.photo_files import list_photos
from piu_lora.identity.pictures import read_picture
from piu_lora.identity.second_look import Detection, best_turn, lies, tiles, without_doubles
from piu_lora.jobs.banks.build import build_bank
from tests.jobs.banks.fake_photos import FAKE_SETTINGS, FakeReader, people
from tests.photos import PACK, PORTRAITS, needs_faces

UPRIGHT = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)


def seen(score: float, points: np.ndarray = UPRIGHT, box: tuple[float, ...] = (0, 0, 9, 9)) -> Detection:
    return Detection(np.array(box, np.float32), score, points)


def test_which_way_a_face_lies() -> None:
    turned = UPRIGHT[:, ::-1] * [1, -1]
    assert not lies(UPRIGHT)
    assert lies(turned.astype(np.float32))
    assert lies(-UPRIGHT)
    nodding = UPRIGHT + np.array([[0, 0], [0, 0], [0, 0], [15, 0], [15, 0]], np.float32)
    assert not lies(nodding)


@pytest.mark.parametrize(
    ("scores", "turn"),
    [
        ({0: 0.6, 180: 0.8, 90: 0.5, 270: 0.5}, 180),
        ({0: 0.7, 180: 0.71, 90: 0.5, 270: 0.5}, 0),  # too close: left as it is
        ({0: None, 180: None, 90: 0.6, 270: None}, 90),
        ({0: None, 180: None, 90: None, 270: None}, 0),
        ({0: 0.8}, 0),
    ],
)
def test_the_turn_that_is_clearly_better(scores: dict[int, float | None], turn: int) -> None:
    found = {angle: None if score is None else seen(score) for angle, score in scores.items()}
    assert best_turn(found) == turn


def test_a_face_on_its_side_needs_no_margin() -> None:
    on_its_side = (UPRIGHT[:, ::-1] * [1, -1]).astype(np.float32)
    assert best_turn({0: seen(0.7, on_its_side), 90: seen(0.71)}) == 90


@pytest.mark.parametrize(("height", "width"), [(3000, 4000), (1281, 300), (1280, 1280), (4096, 4096)])
def test_tiles_cover_the_picture_and_overlap(height: int, width: int) -> None:
    parts = tiles(height, width)
    if max(height, width) <= 1280:
        assert parts == []
        return
    covered = np.zeros((height, width), np.uint8)
    for y0, x0, y1, x1 in parts:
        assert 0 <= y0 < y1 <= height
        assert 0 <= x0 < x1 <= width
        covered[y0:y1, x0:x1] = 1
    assert covered.all()


def test_a_face_seen_in_two_tiles_is_one() -> None:
    faces = [seen(0.7, box=(0, 0, 10, 10)), seen(0.8, box=(1, 0, 11, 10)), seen(0.6, box=(20, 0, 30, 10))]
    assert [face.score for face in without_doubles(faces)] == [0.8, 0.6]


# --- with real faces


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader(PACK, threads=1)


def portrait(person: int) -> Path:
    return sorted(PORTRAITS.iterdir())[person] / "2024.jpg"


@cache
def embedding(person: int) -> torch.Tensor:
    return FaceReader(PACK, threads=1).faces(read_picture(portrait(person)))[0].embedding


@needs_faces
@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_photograph_that_lost_its_tag_is_turned(
    reader: FaceReader, tmp_path: Path, caplog: pytest.LogCaptureFixture, turn: int
) -> None:
    person = turn // 90
    Image.open(portrait(person)).rotate(turn, expand=True).save(tmp_path / "a.png")
    (face,) = reader.read(tmp_path / "a.png")
    assert float(face.embedding @ embedding(person)) > 0.99
    assert (face.turned + turn) % 360 == 0
    assert f"a.png is not upright; it was turned by {360 - turn} degrees" in caplog.text
    assert gather(reader, list_photos(tmp_path), 0.3).turned == 1


@needs_faces
def test_an_upright_photograph_is_left_alone(reader: FaceReader, caplog: pytest.LogCaptureFixture) -> None:
    (face,) = reader.read(portrait(1))
    assert face.turned == 0
    assert torch.equal(face.embedding, embedding(1))
    assert caplog.text == ""


@needs_faces
def test_a_small_face_in_a_large_photograph(reader: FaceReader, tmp_path: Path) -> None:
    canvas = Image.new("RGB", (2600, 1800), (90, 120, 140))
    canvas.paste(Image.open(portrait(2)).resize((120, 150)), (2100, 1300))
    canvas.save(tmp_path / "far.png")
    (face,) = reader.read(tmp_path / "far.png")
    assert float(face.embedding @ embedding(2)) > 0.6
    assert face.turned == 0
    assert 2100 < face.box[0] < face.box[2] < 2220


# --- said and counted


class Turning(FakeReader):
    """Turns the first photograph of everybody."""

    def read(self, path: Path) -> list[object]:
        faces = list(super().read(path))
        for face in faces:
            face.turned = 180 if path.name == "000.jpg" else 0
        return faces


def test_a_bank_counts_what_was_turned(tmp_path: Path) -> None:
    photos, out = people(tmp_path / "photos", 3, 3), tmp_path / "bank.safetensors"
    made = build_bank(photos, out, Turning(), FAKE_SETTINGS, workers=1)
    assert [f"{path.parent.name}/{path.name}" for path in made.turned] == [
        f"person-00{number}/000.jpg" for number in range(3)
    ]
    assert made.bank.settings["turned_photographs"] == 3
    plain = build_bank(photos, tmp_path / "plain.safetensors", FakeReader(), FAKE_SETTINGS, workers=1)
    assert "turned_photographs" not in plain.bank.settings
