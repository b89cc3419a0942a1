"""Whatever a camera, a phone or a scanner writes becomes an upright RGB array, or an error that names the
file.
"""

import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from piu_lora.errors import BadInput
from piu_lora.identity.pictures import PHOTO_SUFFIXES, UnusablePhoto, list_photos, read_picture

Array = npt.NDArray[np.uint8]
ORIENTATION = 0x0112


@pytest.fixture(autouse=True)
def no_warning_leaks(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    """No test of this file may warn the user of anything."""
    yield
    assert [str(each.message) for each in recwarn] == []


def context(height: int = 60, width: int = 80) -> Array:
    """Smooth, coloured, and different from all of its turns and mirrors."""
    y, x = np.mgrid[0:height, 0:width]
    return (
        np.stack([255 * x / width, 255 * y / height, 255 * x * y / (width * height)], axis=-1)
        .round()
        .astype(np.uint8)
    )


def saved(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


def png_of_size(path: Path, width: int, height: int) -> Path:
    """A black 1-bit PNG of any size, in a few kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path


def refused(path: Path) -> str:
    """The reason for which a file is refused; the whole message names the file."""
    with pytest.raises(UnusablePhoto) as error:
        read_picture(path)
    assert isinstance(error.value, BadInput)
    assert error.value.path == path
    assert error.value.reason.strip()
    assert str(path) not in error.value.reason
    assert str(error.value) == f"{str(path)!r}: {error.value.reason}; pass another photograph"
    return error.value.reason


# --- what is read


@pytest.mark.parametrize("suffix", sorted(PHOTO_SUFFIXES))
def test_every_suffix_that_is_listed_can_be_read(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(context()))
    picture = read_picture(path)
    assert (picture.shape, picture.dtype) == ((60, 80, 3), np.uint8)
    assert list_photos(tmp_path) == [path]


def test_pixels_of_a_lossless_file_are_kept(tmp_path: Path) -> None:
    assert np.array_equal(read_picture(saved(tmp_path / "a.png", Image.fromarray(context()))), context())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_turned_photograph_is_read_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    turns = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright, turn = Image.fromarray(context()), turns[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {} if suffix == "png" else {"quality": 95}
    path = saved(
        tmp_path / f"a.{suffix}", upright if turn is None else upright.transpose(turn), exif=exif, **options
    )
    picture = read_picture(path)
    assert picture.shape == (60, 80, 3)
    assert np.abs(picture.astype(int) - context()).mean() < 4


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_becomes_the_same_grey_ramp(tmp_path: Path, mode: str) -> None:
    """Read from the file, a grey ramp is the ramp again, whatever it was stored as."""
    ramp = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (40, 1))
    if mode == "I;16":
        path = saved(tmp_path / "a.png", Image.fromarray(ramp.astype(np.uint16) * 257))
    elif mode in ("I", "F"):
        path = saved(
            tmp_path / "a.tif",
            Image.fromarray((ramp.astype(np.float64) * 257).astype(np.int32 if mode == "I" else np.float32)),
        )
    elif mode in ("CMYK", "YCbCr"):
        path = saved(tmp_path / "a.jpg", Image.fromarray(ramp).convert("RGB").convert(mode), quality=98)
    else:
        path = saved(tmp_path / "a.png", Image.fromarray(ramp).convert(mode))
    picture = read_picture(path)
    assert picture.shape == (40, 64, 3)
    if mode == "1":
        assert set(np.unique(picture)) == {0, 255}
    else:
        assert np.abs(picture.astype(int) - ramp[..., None]).max() <= 4
    assert (picture.max(axis=2) - picture.min(axis=2)).max() <= 4


def test_a_dark_16_bit_scan_stays_dark(tmp_path: Path) -> None:
    """Scaled by what 16 bits can hold, not by what the picture holds."""
    values = np.full((40, 40), 65535 // 4, np.uint16)
    assert np.unique(read_picture(saved(tmp_path / "a.png", Image.fromarray(values)))).tolist() == [64]


def test_16_bit_values_that_8_bits_hold_are_8_bits(tmp_path: Path) -> None:
    values = np.full((40, 40), 200, np.uint16)
    assert np.unique(read_picture(saved(tmp_path / "a.png", Image.fromarray(values)))).tolist() == [200]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_shows_through_is_grey(tmp_path: Path, mode: str) -> None:
    """Left transparent, right a solid white."""
    layer = np.full((40, 80, 4), 255, np.uint8)
    layer[:, :40] = (255, 0, 0, 0)
    picture = Image.fromarray(layer)
    if mode == "P":
        indexed = Image.fromarray((layer[..., 3] // 255).astype(np.uint8), "P")
        indexed.putpalette([255, 0, 0, 255, 255, 255])
        path = saved(tmp_path / "a.png", indexed, transparency=0)
    else:
        path = saved(tmp_path / "a.png", picture.convert(mode))
    read = read_picture(path)
    assert np.unique(read[:, :40]).tolist() == [127]
    assert np.unique(read[:, 40:]).tolist() == [255]


def test_half_transparent_pixels_are_mixed_with_grey(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGBA", (40, 40), (255, 255, 255, 128)))
    assert np.abs(read_picture(path).astype(int) - 191).max() <= 1


def test_one_transparent_colour_of_an_rgb_file_is_grey(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (40, 40), (10, 20, 30)), transparency=(10, 20, 30))
    assert np.unique(read_picture(path)).tolist() == [127]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_frame_of_an_animation_counts(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    read = read_picture(
        saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    )
    assert np.unique(read.reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def test_the_end_of_a_file_may_hold_more(tmp_path: Path) -> None:
    """Phones append films and maps to their photographs."""
    path = saved(tmp_path / "a.jpg", Image.fromarray(context()))
    alone = read_picture(path)
    path.write_bytes(path.read_bytes() + b"more" * 1000)
    assert np.array_equal(read_picture(path), alone)


def test_a_name_with_the_wrong_suffix_is_read_by_content(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", Image.fromarray(context()))
    (tmp_path / "a.png").rename(tmp_path / "é \n.jpg")
    assert np.array_equal(read_picture(tmp_path / "é \n.jpg"), context())


# --- how large


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((800, 600), 400, (300, 400)),
        ((600, 800), 400, (400, 300)),
        ((400, 300), 400, (300, 400)),
        ((100, 80), 4096, (80, 100)),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_only_what_is_larger_is_reduced(
    tmp_path: Path, size: tuple[int, int], longest: int, expected: tuple[int, int], suffix: str
) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(context(size[1], size[0])))
    picture = read_picture(path, longest=longest)
    assert picture.shape == (*expected, 3)
    assert np.abs(picture.astype(int) - context(*expected)).mean() < 4


def test_a_turned_photograph_is_reduced_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = saved(
        tmp_path / "a.jpg", Image.fromarray(context(300, 900)).transpose(Image.Transpose.ROTATE_90), exif=exif
    )
    picture = read_picture(path, longest=100)
    assert picture.shape == (33, 100, 3)
    assert np.abs(picture.astype(int) - context(33, 100)).mean() < 5


def test_a_photograph_of_108_megapixels_is_read_without_a_warning(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("L", (12000, 9000), 99), quality=50)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(path).close()
    picture = read_picture(path)
    assert picture.shape == (3072, 4096, 3)
    assert np.abs(picture.astype(int) - 99).max() <= 1


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["jpg", "png", "gif", "tif", "webp", "bmp"]),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_damage_anywhere_is_survived(
    tmp_path: Path, suffix: str, damage: list[tuple[float, int]], early: bool
) -> None:
    """A damaged file gives a picture or the error that is caught everywhere, and nothing else."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    options = {} if suffix in ("gif", "bmp") else {"exif": exif}
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(context(40, 48)), **options)
    content = bytearray(path.read_bytes())
    for place, value in damage:
        content[int(place * (min(len(content), 200) if early else len(content)))] = value
    path.write_bytes(content)
    try:
        picture = read_picture(path)
    except UnusablePhoto:
        return
    assert picture.ndim == 3


# --- threads, and what is left behind


def test_eight_threads_read_the_same_and_leave_the_process_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = [
        saved(tmp_path / f"{i}.jpg", Image.fromarray(rng.integers(0, 255, (90, 120, 3), np.uint8)))
        for i in range(40)
    ]
    stdout, hook, filters = sys.stdout, warnings.showwarning, len(warnings.filters)
    alone = [read_picture(path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(read_picture, paths * 3))
    assert all(np.array_equal(one, other) for one, other in zip(alone * 3, together, strict=True))
    assert (sys.stdout, warnings.showwarning) == (stdout, hook)
    assert len(warnings.filters) <= filters + 1
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", UserWarning, stacklevel=1)


# --- lists of files


def test_photographs_are_listed_by_name_without_hidden_or_other_files(tmp_path: Path) -> None:
    for name in (
        "b.JPG",
        "a.png",
        "10.jpeg",
        "9.jpeg",
        "c.webp",
        "é.tiff",
        ".hidden.jpg",
        "._a.png",
        "notes.txt",
        "a.heic",
        "jpg",
    ):
        (tmp_path / name).touch()
    assert [path.name for path in list_photos(tmp_path)] == [
        "10.jpeg",
        "9.jpeg",
        "a.png",
        "b.JPG",
        "c.webp",
        "é.tiff",
    ]


def test_an_upright_picture_is_what_pil_shows(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(context()), quality=80)
    with Image.open(path) as reference:
        assert np.array_equal(
            read_picture(path), np.asarray(ImageOps.exif_transpose(reference).convert("RGB"))
        )
