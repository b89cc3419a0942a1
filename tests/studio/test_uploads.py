"""Photographs that are dropped."""

import io
from pathlib import Path

import pytest
from PIL import Image

from piu_lora.studio.uploads import LARGEST, keep, thumbnail
from piu_lora.studio.visitors import Visitor

pytest.importorskip("fastapi", reason="no Gradio here (pip install '.[studio]')")


def test_photographs_are_named_by_no_name_of_theirs(tmp_path: Path) -> None:
    from fastapi import UploadFile

    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    visitor = Visitor("k" * 32, tmp_path)
    sent = [
        UploadFile(io.BytesIO(picture.getvalue()), filename="ann smith.png"),
        UploadFile(io.BytesIO(b"\x89PNG nothing"), filename="../broken.png"),
        UploadFile(io.BytesIO(b"x" * (LARGEST + 1)), filename="large.jpg"),
    ]
    answer = keep(visitor, sent)
    assert [path.name for path in visitor.photographs] == ["01.png"]
    assert visitor.photographs[0].stat().st_mode & 0o777 == 0o600
    assert answer["refused"] == [
        "..broken.png: no JPEG, PNG or WebP picture that can be read",
        "large.jpg: larger than 10 MB",
    ]


def test_a_thumbnail_is_upright_and_small(tmp_path: Path) -> None:
    path, exif = tmp_path / "01.jpg", Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"  # turned by a quarter
    Image.new("RGB", (600, 300)).save(path, exif=exif)
    with Image.open(io.BytesIO(thumbnail(path))) as picture:
        assert picture.size == (72, 144)
        assert not picture.getexif()
