"""Faces of real photographs, checked against insightface itself."""

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from piu_lora.identity import FaceReader, faces
from piu_lora.identity.pictures import UnusablePhoto, read_picture
from tests.photos import PACK, PORTRAITS, needs_faces

Array = npt.NDArray[np.uint8]
SOME = (0, 2, 4, 5, 8, 11)  # people, by their place among the portraits
pytestmark = pytest.mark.usefixtures("no_download")


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader(PACK, threads=2)


@pytest.fixture
def only_the_first_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "_ATTEMPTS", faces._ATTEMPTS[:1])


def portrait(person: int, year: int = 2024) -> Path:
    return sorted(PORTRAITS.iterdir())[person] / f"{year}.jpg"


@cache
def pixels(person: int, year: int = 2024) -> Array:
    return read_picture(portrait(person, year))


@cache
def embedding(person: int, year: int = 2024) -> torch.Tensor:
    return FaceReader(PACK, threads=2).faces(pixels(person, year))[0].embedding


def enlarged(picture: Array, width: int) -> Array:
    height = round(picture.shape[0] * width / picture.shape[1])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def side_by_side(*pictures: Array) -> Array:
    """On white, from left to right, tops aligned."""
    ground = np.full(
        (max(each.shape[0] for each in pictures), sum(each.shape[1] for each in pictures), 3), 255, np.uint8
    )
    left = 0
    for each in pictures:
        ground[: each.shape[0], left : left + each.shape[1]] = each
        left += each.shape[1]
    return ground


def group(path: Path) -> Path:
    """A small face on the left, a large one on the right."""
    Image.fromarray(side_by_side(enlarged(pixels(0), 160), enlarged(pixels(2), 335))).save(path)
    return path


# --- against insightface


def plain_insightface(picture: Array) -> torch.Tensor:
    """The largest face of a BGR picture, as the documentation of insightface has it."""
    from insightface.app import FaceAnalysis

    app = FaceAnalysis(name=str(PACK), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=0, det_size=(640, 640))
    found = max(
        app.get(picture), key=lambda face: (face.bbox[2] - face.bbox[0]) * (face.bbox[3] - face.bbox[1])
    )
    return torch.from_numpy(found.normed_embedding)


@needs_faces
@pytest.mark.parametrize("person", SOME[:4])
@pytest.mark.parametrize("year", [2014, 2024])
def test_embeddings_are_those_of_a_plain_insightface_loop(reader: FaceReader, person: int, year: int) -> None:
    import cv2

    bgr = cv2.imread(str(portrait(person, year)))
    assert bgr is not None
    (found,) = reader.read(portrait(person, year))
    assert found.embedding.dtype == torch.float32
    assert float(found.embedding.norm()) == pytest.approx(1, abs=1e-5)
    assert float(found.embedding @ plain_insightface(bgr)) > 0.9999
    # Were the channels in the wrong order on either side, this is what it would come to.
    assert float(found.embedding @ plain_insightface(np.ascontiguousarray(bgr[..., ::-1]))) < 0.99
    assert (
        float(
            found.embedding @ reader.faces(np.ascontiguousarray(pixels(person, year)[..., ::-1]))[0].embedding
        )
        < 0.99
    )


@pytest.mark.slow
@needs_faces
def test_ten_years_later_a_person_is_nearer_to_themselves_than_to_anybody_else(reader: FaceReader) -> None:
    people = range(20)
    before = torch.stack([reader.read(portrait(person, 2014))[0].embedding for person in people])
    after = torch.stack([reader.read(portrait(person, 2024))[0].embedding for person in people])
    cosines = before @ after.T
    assert cosines.argmax(dim=1).tolist() == cosines.argmax(dim=0).tolist() == list(range(len(people)))
    own, others = cosines.diagonal(), cosines[~torch.eye(len(people), dtype=torch.bool)]
    assert float(own.mean()) > 0.45
    assert float(others.mean()) < 0.1


@needs_faces
@pytest.mark.parametrize("person", SOME[:3])
def test_an_orientation_tag_is_followed(reader: FaceReader, tmp_path: Path, person: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(pixels(person)).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    assert float(reader.read(tmp_path / "turned.jpg")[0].embedding @ embedding(person)) > 0.98


@needs_faces
@pytest.mark.parametrize("kind", ["L", "RGBA", "CMYK", "I;16", "P"])
@pytest.mark.parametrize("person", SOME[:2])
def test_a_copy_of_another_kind_is_the_same_person(
    reader: FaceReader, tmp_path: Path, kind: str, person: int
) -> None:
    picture = Image.fromarray(pixels(person))
    path = tmp_path / ("copy.jpg" if kind == "CMYK" else "copy.png")
    if kind == "I;16":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        picture.convert(kind).save(path, **({"quality": 95} if kind == "CMYK" else {}))
    assert float(reader.read(path)[0].embedding @ embedding(person)) > 0.9


# --- several faces


@needs_faces
def test_the_largest_face_comes_first_whatever_the_scores_say(reader: FaceReader) -> None:
    misled = 0
    for small, large in itertools.pairwise(SOME):
        for order in ((0, 1), (1, 0)):
            two = [enlarged(pixels(small), 200), enlarged(pixels(large), 335)]
            found = reader.faces(side_by_side(*(two[place] for place in order)))
            assert len(found) == 2
            assert found[0].area > found[1].area
            assert float(found[0].embedding @ embedding(large)) > 0.8
            assert float(found[1].embedding @ embedding(small)) > 0.8
            misled += found[0].score < found[1].score
    assert misled  # in at least one, the best score is not the largest face


@needs_faces
def test_the_largest_of_several_is_taken_with_a_warning(
    reader: FaceReader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = group(tmp_path / "two people.png")
    (found,) = reader.read(path)
    assert float(found.embedding @ embedding(2)) > 0.9
    assert f"{path} shows 2 faces; the largest is taken" in caplog.text


@needs_faces
def test_only_refuses_a_group_and_counts_it(tmp_path: Path) -> None:
    picky = FaceReader(PACK, several="only", threads=2)
    with pytest.raises(UnusablePhoto, match=r"two\.png': 2 faces, and only one is allowed"):
        picky.read(group(tmp_path / "two.png"))
    assert len(picky.read(portrait(0))) == 1


@needs_faces
def test_all_takes_everybody_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = FaceReader(PACK, several="all", threads=2).read(group(tmp_path / "two.png"))
    assert [
        round(float(face.embedding @ embedding(person))) for face, person in zip(found, (2, 0), strict=True)
    ] == [1, 1]
    assert caplog.text == ""


# --- faces that are hard to find


def tight(person: int, year: int) -> tuple[Array, Array]:
    """The face alone, 800 pixels wide, and the embedding of it in the whole portrait."""
    whole = pixels(person, year)
    x0, y0, x1, y1 = (round(value) for value in FaceReader(PACK, threads=2).faces(whole)[0].box)
    return enlarged(whole[max(0, y0) : y1, max(0, x0) : x1], 800), embedding(person, year).numpy()


@needs_faces
@pytest.mark.usefixtures("only_the_first_attempt")
def test_a_face_that_fills_the_picture_is_missed_at_640_alone(reader: FaceReader) -> None:
    assert [reader.faces(tight(person, 2024)[0]) for person in SOME[:3]] == [[], [], []]


@needs_faces
@pytest.mark.parametrize("person", SOME[:3])
def test_a_face_that_fills_the_picture_is_found(reader: FaceReader, person: int) -> None:
    crop, whole = tight(person, 2024)
    (found,) = reader.faces(crop)
    assert float(found.embedding.numpy() @ whole) > 0.8


@needs_faces
@pytest.mark.parametrize("attempt", range(4))
def test_boxes_are_in_pixels_of_the_picture_whatever_attempt_found_them(
    reader: FaceReader, attempt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = pixels(2)
    expected = np.array(reader.faces(picture)[0].box)
    monkeypatch.setattr(faces, "_ATTEMPTS", faces._ATTEMPTS[attempt : attempt + 1])
    (found,) = reader.faces(picture)
    width = expected[2] - expected[0]
    assert np.abs(np.array(found.box) - expected).max() < 0.12 * width
    assert float(found.embedding @ embedding(2)) > 0.9


@needs_faces
def test_the_box_of_a_face_that_fills_the_picture_is_the_picture(reader: FaceReader) -> None:
    crop, _ = tight(2, 2024)
    (found,) = reader.faces(crop)
    height, width, _ = crop.shape
    assert np.abs(np.array(found.box) - np.array([0, 0, width, height])).max() < 0.25 * width
    assert found.area == pytest.approx(width * height, rel=0.35)


@needs_faces
def test_a_picture_without_a_face_is_refused(reader: FaceReader, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "grey").save(tmp_path / "wall.png")
    with pytest.raises(UnusablePhoto, match=r"wall\.png': no face found; pass another photograph"):
        reader.read(tmp_path / "wall.png")


@needs_faces
@pytest.mark.parametrize("shape", [(32, 32), (4096, 32), (33, 2000)])
def test_odd_sizes_hold_no_face(reader: FaceReader, shape: tuple[int, int]) -> None:
    assert reader.faces(np.full((*shape, 3), 127, np.uint8)) == []


@needs_faces
def test_a_long_strip_holds_no_face(reader: FaceReader, tmp_path: Path) -> None:
    """Reduced to 4096 pixels, it is three pixels wide."""
    Image.new("RGB", (40000, 32)).save(tmp_path / "strip.png")
    with pytest.raises(UnusablePhoto):
        reader.read(tmp_path / "strip.png")


# --- generated pictures


@needs_faces
def test_generated_pictures_are_embedded_and_blank_ones_are_zero(reader: FaceReader) -> None:
    face = torch.from_numpy(pixels(2).copy()).permute(2, 0, 1)[None].float() / 255
    assert float(reader.embed(face)[0] @ embedding(2)) > 0.9999
    rows = reader.embed(torch.cat([torch.full_like(face, 0.5), face, torch.zeros_like(face)]))
    assert rows.shape == (3, 512)
    assert rows.dtype == torch.float32
    assert rows.norm(dim=1).tolist() == pytest.approx([0, 1, 0], abs=1e-5)


@needs_faces
def test_generated_pictures_may_stray_from_their_range(reader: FaceReader) -> None:
    face = torch.from_numpy(pixels(2).copy()).permute(2, 0, 1)[None].float() / 255
    strayed = torch.where(face > 0.99, 1.3, torch.where(face < 0.01, -0.3, face))
    assert float(reader.embed(strayed.half())[0] @ embedding(2)) > 0.99


# --- the process around it


@pytest.mark.slow
@needs_faces
def test_eight_threads_give_the_bits_that_one_gives() -> None:
    photos = [portrait(person, year) for person in SOME for year in (2014, 2024)]
    stdout = sys.stdout
    alone = FaceReader(PACK, threads=1)
    serial = [alone.read(path)[0].embedding for path in photos]
    shared = FaceReader(PACK, threads=1)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda path: shared.read(path)[0].embedding, photos * 2))
    assert all(torch.equal(one, other) for one, other in zip(serial * 2, together, strict=True))
    assert sys.stdout is stdout


@needs_faces
def test_nothing_is_printed_and_nothing_warned_of(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    FaceReader(PACK, threads=2).read(portrait(0))
    assert capfd.readouterr() == ("", "")
    assert [str(each.message) for each in recwarn] == []


@needs_faces
def test_the_recognizer_is_known_by_name_and_digest(reader: FaceReader) -> None:
    import hashlib

    assert reader.name == reader.id.name == "w600k_mbf_int8.onnx"
    assert reader.id.sha256 == hashlib.sha256((PACK / reader.name).read_bytes()).hexdigest()
    assert reader.settings["detector"] == "det_500m_dyn.onnx"
    assert (
        reader.settings["detector_sha256"]
        == hashlib.sha256((PACK / "det_500m_dyn.onnx").read_bytes()).hexdigest()
    )
    assert reader.settings["several"] == "largest"
    assert reader.settings["attempts"][0] == [640, 0.0]
