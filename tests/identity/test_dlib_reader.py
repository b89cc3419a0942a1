"""dlib's recognizer as a judge: real portraits, and what is said where it is not installed."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.identity import DlibReader
from piu_lora.identity.pictures import UnusablePhoto, read_picture
from piu_lora.jobs.request.readers import open_reader, open_second
from tests.photos import PACK, PORTRAITS, needs_faces

PEOPLE = range(8)
needs_dlib = pytest.mark.skipif(
    importlib.util.find_spec("face_recognition_models") is None, reason="the extra dlib is not installed"
)


def portrait(person: int, photograph: int = 0) -> Path:
    return sorted(sorted(PORTRAITS.iterdir())[person].iterdir())[photograph]


@cache
def embedded(photograph: int) -> torch.Tensor:
    """Unit rows of the first people, one photograph each."""
    reader = DlibReader()
    return torch.stack([reader.read(portrait(person, photograph))[0].embedding for person in PEOPLE])


@needs_dlib
@needs_faces
@pytest.mark.slow
def test_everybody_is_nearest_to_their_own_other_photograph() -> None:
    cosines = embedded(0) @ embedded(1).T
    assert cosines.argmax(dim=1).tolist() == list(PEOPLE)
    assert embedded(0).norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)


@needs_dlib
@needs_faces
@pytest.mark.slow
def test_a_photograph_on_its_side_gives_the_same_face(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turned = tmp_path / "turned.png"
    Image.fromarray(np.rot90(read_picture(portrait(1)))).save(turned)
    (face,) = DlibReader().read(turned)
    assert face.turned == 270
    assert float(face.embedding @ embedded(0)[1]) > 0.999
    assert "turned by 270 degrees" in caplog.text


@needs_dlib
@needs_faces
@pytest.mark.slow
def test_generated_pictures_are_read_like_photographs_and_no_face_is_zeros() -> None:
    picture = torch.from_numpy(read_picture(portrait(0)).copy()).permute(2, 0, 1).float() / 255
    rows = DlibReader().embed(torch.stack([picture, torch.zeros_like(picture)]))
    assert rows.shape == (2, 128)
    assert torch.allclose(rows[0], embedded(0)[0], atol=1e-5)
    assert not rows[1].any()


@needs_dlib
@needs_faces
@pytest.mark.slow
@pytest.mark.parametrize(
    ("several", "count", "refused"), [("all", 2, ""), ("largest", 1, ""), ("only", 0, "2 faces")]
)
def test_several_faces(tmp_path: Path, several: str, count: int, refused: str) -> None:
    left, right = (Image.open(portrait(person)) for person in (1, 3))
    both = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    both.save(tmp_path / "two.png")
    reader = DlibReader(several=several)  # type: ignore[arg-type]
    if refused:
        with pytest.raises(UnusablePhoto, match=refused):
            reader.read(tmp_path / "two.png")
    else:
        assert len(reader.read(tmp_path / "two.png")) == count


@needs_dlib
def test_no_face_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (96, 96), "white").save(tmp_path / "blank.png")
    with pytest.raises(UnusablePhoto, match="no face found"):
        DlibReader().read(tmp_path / "blank.png")


@needs_dlib
def test_it_stands_in_for_a_face_pack_by_name() -> None:
    reader = open_reader("dlib")
    assert isinstance(reader, DlibReader)
    assert reader.id.name == "dlib"
    assert len(reader.id.sha256) == 64


@needs_faces
def test_a_folder_is_a_face_pack_still() -> None:
    assert not isinstance(open_reader(PACK), DlibReader)


@needs_dlib
def test_as_second_recognizer_it_needs_a_bank() -> None:
    with pytest.raises(BadInput, match="second_bank=FILE"):
        open_second("dlib", None)


def test_without_the_extra_the_command_that_mends_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'piu-lora\[dlib\]'"):
        DlibReader()
