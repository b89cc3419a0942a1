"""Nothing that names a person leaves: planted secrets of every kind are found, and a clean folder is clean."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from piu_lora.adapter import Hit, Secrets, scan_files
from piu_lora.identity import centroid, normalize

PERSON = normalize(torch.randn(3, 64, generator=torch.Generator().manual_seed(0)))


def found(folder: Path, content: bytes, secrets: Secrets, name: str = "file.bin") -> list[Hit]:
    (folder / name).write_bytes(content)
    return scan_files(folder, [name], secrets)


def test_a_clean_folder_is_clean(adapter_folder: Path) -> None:
    files = [path.relative_to(adapter_folder).as_posix() for path in adapter_folder.rglob("*") if path.is_file()]
    assert scan_files(adapter_folder, files, Secrets.of("person-001", PERSON)) == []


@pytest.mark.parametrize("form", [
    lambda text: text.encode(), lambda text: text.upper().encode(), lambda text: text.encode("utf-16-le"),
    lambda text: json.dumps({"x": text}).encode(),
])  # fmt: skip
@pytest.mark.parametrize("identity", ["person-0042", "Jürgen Müller"])
def test_ids_in_any_spelling(tmp_path: Path, form, identity: str) -> None:  # type: ignore[no-untyped-def]
    hits = found(tmp_path, b"\x00\xff" * 50 + form(identity) + b"\x00" * 9, Secrets.of(identity))
    assert hits
    assert 100 <= hits[0].offset <= 110
    assert all(identity.casefold() not in hit.what.casefold() for hit in hits)


def test_source_paths_and_their_parts(tmp_path: Path) -> None:
    photo = tmp_path / "photos of Erika" / "erika_mustermann.jpg"
    photo.parent.mkdir()
    photo.touch()
    secrets = Secrets.of(str(photo))
    for text in (str(photo), "erika_mustermann.jpg", "Erika_Mustermann", "photos of erika"):
        assert found(tmp_path, b"{" + text.encode() + b"}", secrets), text
    assert found(tmp_path, b"", secrets, "erika_mustermann.txt")[0].what.endswith("own name")


def test_short_ids_only_as_whole_words_of_text(tmp_path: Path) -> None:
    assert found(tmp_path, b"name: Ann, 7", Secrets.of("Ann"), "a.txt")
    assert not found(tmp_path, b"annotation", Secrets.of("Ann"), "a.txt")
    assert not found(tmp_path, b"\x00 Ann \x00", Secrets.of("Ann"))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("which", ["first", "last", "centroid"])
def test_raw_embeddings(tmp_path: Path, dtype: type, which: str) -> None:
    row = {"first": PERSON[0], "last": PERSON[-1], "centroid": centroid(PERSON)}[which].numpy().astype(dtype)
    secrets = Secrets.of("", PERSON)
    hits = found(tmp_path, b"abc" + row.tobytes(), secrets)
    assert [hit.offset for hit in hits] == [3]
    for shift in range(3):
        assert found(tmp_path, b'{"e": "' + base64.b64encode(b"x" * shift + row.tobytes()) + b'"}', secrets), shift


def test_half_of_an_embedding_and_bfloat16(tmp_path: Path) -> None:
    secrets = Secrets.of("", PERSON)
    raw = PERSON[1].numpy().tobytes()
    assert found(tmp_path, raw[: len(raw) // 2], secrets)
    assert found(tmp_path, raw[len(raw) // 2 :], secrets)
    assert found(tmp_path, PERSON[1].bfloat16().view(torch.uint8).numpy().tobytes(), secrets)


@pytest.mark.parametrize("write", [
    lambda row: json.dumps(row.tolist()), lambda row: json.dumps(row.tolist(), separators=(",", ":")),
    lambda row: ", ".join(f"{value:.4f}" for value in row.tolist()), lambda row: " ".join(f"{value:.6f}" for value in row.tolist()),
])  # fmt: skip
def test_written_out_embeddings(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    assert found(tmp_path, write(PERSON[2]).encode(), Secrets.of("", PERSON))


def test_somebody_else_is_not_a_hit(tmp_path: Path) -> None:
    other = normalize(torch.randn(1, 64, generator=torch.Generator().manual_seed(1)))
    assert not found(tmp_path, other.numpy().tobytes() + json.dumps(other.tolist()).encode(), Secrets.of("person-0042", PERSON))


def picture(path: Path, **options: object) -> None:
    Image.new("RGB", (8, 8)).save(path, **options)


def test_image_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "somebody"
    text, software = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    text.add_text("Author", "somebody")
    software.add_text("Software", "Matplotlib")
    for name, options in (("a.jpg", {"exif": exif}), ("a.png", {"exif": exif}), ("b.png", {"pnginfo": text}), ("a.webp", {"exif": exif})):
        picture(tmp_path / name, **options)
        hits = scan_files(tmp_path, [name], Secrets())
        assert [hit.what for hit in hits] == ["image metadata (EXIF, XMP or text)"], name
        assert hits[0].offset > 0
    for name, options in (("c.jpg", {}), ("c.png", {}), ("d.png", {"pnginfo": software})):
        picture(tmp_path / name, **options)
        assert scan_files(tmp_path, [name], Secrets()) == [], name


def test_paths_of_a_home_folder(tmp_path: Path) -> None:
    assert found(tmp_path, b'{"source": "/home/' + b'someone/photos"}', Secrets())[0].what == "a path in a user's home"
    assert not found(tmp_path, b"/usr/share/fonts", Secrets())


def test_large_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret on the border between two pieces is found, at the right place."""
    monkeypatch.setattr("piu_lora.adapter.scan._CHUNK", 1000)
    monkeypatch.setattr("piu_lora.adapter.scan._OVERLAP", 100)
    for offset in (0, 990, 995, 1000, 3995):
        content = b"." * offset + b"person-0042" + b"." * 2000
        assert [hit.offset for hit in found(tmp_path, content, Secrets(texts={"the identity": "person-0042"}))] == [offset]
