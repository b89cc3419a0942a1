"""Lists of people as Windows, spreadsheets and phones save them."""

import codecs
from pathlib import Path

import pytest

from piu_lora.errors import BadInput
from piu_lora.identity import read_list
from piu_lora.jobs.request.request import each_identity

IDS = ["mini-0007", "mini-0021"]
LINES = "\n".join(IDS)


@pytest.mark.parametrize(
    "content",
    [
        LINES.encode(),
        "\r\n".join(IDS).encode() + b"\r\n",
        "\r".join(IDS).encode(),
        codecs.BOM_UTF8 + LINES.encode(),
        codecs.BOM_UTF8 + b"# people\r\n" + LINES.encode(),
        LINES.encode("utf-16"),
        codecs.BOM_UTF16_BE + LINES.encode("utf-16-be"),
        LINES.encode("utf-16-le"),
        f"  {IDS[0]}  \n\t{IDS[1]}\t\n\n".encode(),
        f"{IDS[0]}\u00a0\n{IDS[1]}\u200b\n".encode(),
        f'"{IDS[0]}"\n\u201c{IDS[1]}\u201d\n'.encode(),
        f"{IDS[0]} # asked 3 May\n{IDS[1]}\n".encode(),
    ],
)
def test_every_way_to_save_a_list(tmp_path: Path, content: bytes) -> None:
    for name in ("list.txt", "LIST.TXT"):
        (tmp_path / name).write_bytes(content)
        assert read_list(tmp_path / name) == IDS
        assert each_identity(tmp_path / name) == IDS


def test_files_are_looked_for_beside_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lists" / "photos #1").mkdir(parents=True)
    (tmp_path / "lists" / "mini-0007").mkdir()
    (tmp_path / "here.npy").touch()
    listed = tmp_path / "lists" / "list.txt"
    listed.write_text("photos #1\nhere.npy\nmini-0007\n")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "lists"
    assert read_list(listed, ids=["mini-0007"]) == [str(folder / "photos #1"), "here.npy", "mini-0007"]
    assert read_list(listed)[2] == str(folder / "mini-0007")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"# M\xfcller\n", "UTF-8"), (b"a\x1bb\n", "control character"), (b"", "names nobody")],
)
def test_lists_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        each_identity(tmp_path / "list.txt")
    with pytest.raises(BadInput, match="no such file"):
        each_identity(tmp_path / "nowhere.txt")
