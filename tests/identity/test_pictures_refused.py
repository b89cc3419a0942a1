"""Files that are no photograph: refused with a reason, and with the file named."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from piu_lora.identity.pictures import UnusablePhoto, read_picture
from tests.identity.test_pictures import context, png_of_size, refused, saved
from tests.identity.test_pictures import no_warning_leaks as no_warning_leaks


@pytest.mark.parametrize("size", [(1, 1), (31, 200), (200, 31)])
def test_a_tiny_picture_is_refused_with_its_size(tmp_path: Path, size: tuple[int, int]) -> None:
    assert (
        refused(saved(tmp_path / "a.png", Image.new("RGB", size)))
        == f"too small or too narrow ({size[0]} x {size[1]} pixels)"
    )


def test_the_smallest_that_is_read(tmp_path: Path) -> None:
    assert read_picture(saved(tmp_path / "a.png", Image.new("RGB", (32, 32)))).shape == (32, 32, 3)


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = png_of_size(tmp_path / "a.png", 20000, 20000)
    assert path.stat().st_size < 200_000
    assert refused(path) == "more pixels than can be opened safely"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif", "bmp"])
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    reason = refused(path)
    assert (
        reason == "truncated"
        or reason.startswith("damaged (")
        or (suffix == "tif" and reason == "not a picture")
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.touch(), "empty file"),
        (lambda path: path.write_text("no picture at all"), "not a picture"),
        (lambda path: path.write_bytes(b"\xff\xd8\xff"), ""),
        (lambda path: path.mkdir(), "a folder, not a picture"),
        (lambda path: None, "no such file"),
    ],
    ids=["empty", "text", "only a JPEG's first bytes", "folder", "missing"],
)
def test_no_picture_at_all_is_refused(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    make(tmp_path / "a.jpg")
    assert reason in refused(tmp_path / "a.jpg")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(context()))
    path.chmod(0)
    assert refused(path) == "no permission to read it"


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    assert refused(tmp_path / "a.jpg") == "no such file"


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", Image.fromarray(context()))
    assert refused(tmp_path / "a.png" / "b.png")


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UnusablePhoto, match=r"pointer of Git LFS.*git lfs pull"):
        read_picture(tmp_path / "a.jpg")
