"""What lies in a folder: photographs of every kind that Pillow reads, and each other file with its reason."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from piu_lora.errors import BadInput
from piu_lora.identity.photo_files import listed, odd_name, photo_files, photo_tree, printable
from piu_lora.identity.pictures import UnusablePhoto, read_picture
from piu_lora.jobs.banks.photo_folders import folders_of

PICTURE = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (1, 48, 3)))


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def reasons(folder: Path) -> dict[str, str]:
    return {entry.photo.name: entry.reason for entry in photo_files(folder).passed_over}


NAMES = [
    "a.jfif",
    "a.jpe",
    "a.mpo",
    "a.jp2",
    "a.tga",
    "a.avif",
    "a.ppm",
    "a.dib",
    "a.qoi",
    "A.JFIF",
    "scan",
    "a.jpg_large",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_pillow_reads_is_a_photograph(tmp_path: Path, name: str) -> None:
    suffix = Path(name).suffix.lower()
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    kind = "JPEG" if suffix in (".jfif", ".jpe", ".mpo", "", ".jpg_large") else None
    PICTURE.save(tmp_path / name, format=kind)
    assert names(photo_files(tmp_path).photos) == [name]
    assert read_picture(tmp_path / name).shape == (64, 48, 3)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".hidden.jpg", "hidden"),
        ("._a.jpg", "left by a Mac"),
        ("photo.nef", "camera's raw file"),
        ("clip.MOV", "a video"),
        ("a.xmp", "a sidecar"),
        ("Thumbs.db", "a sidecar"),
        ("scan.pdf", "a document"),
        ("scan.eps", "a document"),
        ("all.zip", "an archive"),
        ("readme", "not a picture that Pillow reads"),
    ],
)
def test_every_other_file_has_a_reason(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).write_bytes(b"MM\0*\0\0\0\x08\0\0")
    files = photo_files(tmp_path)
    assert files.photos == []
    assert reason in reasons(tmp_path)[name]


def test_heic_is_read_or_says_what_it_needs(tmp_path: Path) -> None:
    for name in ("a.HEIC", "b.heif", "c.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    with pytest.raises(UnusablePhoto) as error:
        read_picture(tmp_path / "c.jpg")
    try:
        import pillow_heif
    except ImportError:
        assert "pillow-heif" in reasons(tmp_path)["a.HEIC"]
        assert "pillow-heif" in error.value.reason
    else:
        assert names(photo_files(tmp_path).photos) == ["a.HEIC", "b.heif", "c.jpg"]
        pillow_heif.from_pillow(PICTURE).save(str(tmp_path / "real.heic"))
        assert read_picture(tmp_path / "real.heic").shape == (64, 48, 3)


def test_files_that_are_no_files(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "b.jpg")
    (tmp_path / "a.jpg").symlink_to("b.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    files = photo_files(tmp_path)
    assert names(files.photos) == ["b.jpg"]
    assert names(files.folders) == ["folder.jpg"]
    assert reasons(tmp_path) == {
        "a.jpg": "a link to 'b.jpg', which is here too",
        "loop.jpg": "a link to nothing",
        "gone.jpg": "a link to nothing",
        "pipe.jpg": "not a regular file",
    }
    with pytest.raises(UnusablePhoto, match="no regular file"):
        read_picture(tmp_path / "pipe.jpg")


def people(root: Path) -> Path:
    for person in "ab":
        (root / person / "more").mkdir(parents=True)
        for name in ("1.jpg", "more/2.jpg"):
            PICTURE.save(root / person / name)
    return root


@pytest.mark.parametrize("links", [1, 2, 3])
def test_each_real_folder_is_read_once(tmp_path: Path, links: int) -> None:
    """One link to the folder itself gave each photograph 40 times; with two the walk never ended."""
    root = people(tmp_path / "photos")
    for number in range(links):
        (root / "a" / f"link{number}").symlink_to(".", target_is_directory=True)
    (root / "a" / "up").symlink_to("..", target_is_directory=True)
    (root / "a" / "0-other").symlink_to("../b/more", target_is_directory=True)
    (root / "0-alias").symlink_to("b", target_is_directory=True)
    groups, passed_over = folders_of(root)
    assert {name: names(photos) for name, photos in groups.items()} == {
        "a": ["1.jpg", "2.jpg"],
        "b": ["1.jpg", "2.jpg"],
    }
    assert {entry.reason for entry in passed_over} == {"a link to a folder that is read already"}
    assert len(passed_over) == links + 3


def test_a_link_to_a_folder_elsewhere_is_followed_once(tmp_path: Path) -> None:
    root = people(tmp_path / "photos")
    away = tmp_path / "disk" / "c"
    away.mkdir(parents=True)
    PICTURE.save(away / "3.jpg")
    (away / "back").symlink_to(root, target_is_directory=True)
    (root / "c").symlink_to(away, target_is_directory=True)
    (root / "a" / "again").symlink_to(away, target_is_directory=True)
    groups, _ = folders_of(root)
    assert {name: names(photos) for name, photos in groups.items()} == {
        "a": ["1.jpg", "2.jpg", "3.jpg"],
        "b": ["1.jpg", "2.jpg"],
    }


def test_deep_folders_are_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "a"
    folder.joinpath(*["d"] * 300).mkdir(parents=True)
    PICTURE.save(folder.joinpath(*["d"] * 300) / "1.jpg")
    assert len(photo_tree(tmp_path / "photos")[1][folder].photos) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"M\xfcller", "is no UTF-8"),
        (b"a\nb", "line break"),
        (b"a\x1b[31mred", "control character"),
        ("a\u2028b".encode(), "line break"),
    ],
)
def test_names_that_cannot_be_ids_are_found_before_anything_is_read(
    tmp_path: Path, name: bytes, reason: str
) -> None:
    folder = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118
    os.makedirs(folder)  # noqa: PTH103
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "1.jpg").write_bytes(b"not opened")
    with pytest.raises(BadInput, match=reason) as error:
        folders_of(tmp_path)
    assert str(error.value).isprintable()
    assert "rename" in str(error.value)


def test_names_that_look_alike(tmp_path: Path) -> None:
    for name in ("café", "cafe\u0301"):
        (tmp_path / name).mkdir()
    with pytest.raises(BadInput, match="look alike"):
        folders_of(tmp_path)


def test_odd_names_of_photographs_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = os.fsencode(tmp_path / "a") + b"/k\xf6nig\n.jpg"
    PICTURE.save(tmp_path / "a" / "plain.jpg")
    os.rename(tmp_path / "a" / "plain.jpg", path)  # noqa: PTH104
    (photo,) = folders_of(tmp_path)[0]["a"]
    assert read_picture(photo).shape == (64, 48, 3)
    assert printable(photo).encode().isascii()
    assert printable(photo).endswith("k\\udcf6nig\\n.jpg")


def test_ordinary_names_are_ids() -> None:
    assert [odd_name(name) for name in ("Бёрд Ωmega 😀 (1)", " a ", "quote'\"$(x)", "-x")] == [""] * 4


def test_long_lists_are_cut(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02d}.mov").touch()
    text = listed(photo_files(tmp_path).passed_over)
    assert text.endswith("; and 10 more")
