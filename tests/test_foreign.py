"""Files of somebody else's: their names, and that nothing that waits or never ends is opened."""

import os
from pathlib import Path

import pytest

from piu_lora.documents import from_json
from piu_lora.errors import BadInput
from piu_lora.foreign import is_plain, opened, read_content, read_text, require_regular


@pytest.mark.parametrize(
    "name", ["unet/config.json", "a.safetensors", "model-00001-of-00002.safetensors", "_x"]
)
def test_ordinary_names(name: str) -> None:
    assert is_plain(name, 1)


@pytest.mark.parametrize(
    "name",
    [
        ".git/config",
        "~/x",
        "CON/x",
        "con.json",
        "x/LPT1.png",
        "a\n",
        "a/b\n",
        "a//x",
        "/x",
        "x/",
        "",
        ".",
        "..",
        "../x",
        "%2e%2e",
        "%2e%2e/x",
        "a\\b",
        "C:x",
        "a:b",
        "a\0b",
        "x.",
        "x ",
        " x",
        "-rf",
        "a b",
        "é",
        "a\u202eb",
        "x" * 200,
        "/".join("d" * 300),
        "a/b/c",
    ],
)
def test_names_that_mean_something_else_somewhere(name: str) -> None:
    assert not is_plain(name, 1)


@pytest.fixture(params=["pipe", "zero", "folder", "socket"])
def trap(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "trap"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "zero":
        path.symlink_to("/dev/zero")
    elif request.param == "folder":
        path.mkdir()
    else:
        import socket

        socket.socket(socket.AF_UNIX).bind(str(path))
    return path


@pytest.mark.timeout(10)
def test_only_regular_files_are_opened(trap: Path) -> None:
    for read in (require_regular, read_content, read_text):
        with pytest.raises(BadInput, match="regular file"):
            read(trap)


def test_sizes_are_capped(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadInput, match="1,099,511,627,776 bytes"):
        read_text(path)
    with opened(path) as file:
        assert file.read(1) == b"\0"


@pytest.mark.parametrize(
    "text", ["NaN", "[-Infinity]", "1e99999", "-1e400", "9" * 4000, "9" * 5000, "2e308", str(2**64)]
)
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"no number of JSON|more than 64 bits"):
        from_json(text)


def test_numbers_and_depth() -> None:
    assert from_json('[1, -1.5, 1e300, 18446744073709551615, "NaN"]') == [1, -1.5, 1e300, 2**64 - 1, "NaN"]
    with pytest.raises(ValueError, match="nested too deeply"):
        from_json("[" * 100_000)
