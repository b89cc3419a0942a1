"""Nothing that names a person leaves: every planted kind of secret is found, and a clean folder is clean."""

import base64
import json
import os
import time
import unicodedata
from pathlib import Path
from urllib.parse import quote

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
    files = [
        path.relative_to(adapter_folder).as_posix() for path in adapter_folder.rglob("*") if path.is_file()
    ]
    assert scan_files(adapter_folder, files, Secrets.of("person-001", PERSON)) == []


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text.encode(),
        lambda text: text.upper().encode(),
        lambda text: text.encode("utf-16-le"),
        lambda text: json.dumps({"x": text}).encode(),
    ],
)
@pytest.mark.parametrize("identity", ["person-0042", "Jürgen Müller"])
def test_ids_in_any_spelling(tmp_path: Path, form, identity: str) -> None:  # type: ignore[no-untyped-def]
    hits = found(tmp_path, b"\x00\xff" * 50 + form(identity) + b"\x00" * 9, Secrets.of(identity))
    assert hits
    assert 100 <= hits[0].offset <= 110
    assert all(identity.casefold() not in hit.kind.casefold() for hit in hits)


def test_source_paths_and_their_parts(tmp_path: Path) -> None:
    photo = tmp_path / "photos of Erika" / "erika_mustermann.jpg"
    photo.parent.mkdir()
    photo.touch()
    secrets = Secrets.of(str(photo))
    for text in (str(photo), "erika_mustermann.jpg", "Erika_Mustermann", "photos of erika"):
        assert found(tmp_path, b"{" + text.encode() + b"}", secrets), text
    assert found(tmp_path, b"", secrets, "erika_mustermann.txt")[0].kind.endswith("own name")


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
        assert found(
            tmp_path, b'{"e": "' + base64.b64encode(b"x" * shift + row.tobytes()) + b'"}', secrets
        ), shift


def test_half_of_an_embedding_and_bfloat16(tmp_path: Path) -> None:
    secrets = Secrets.of("", PERSON)
    raw = PERSON[1].numpy().tobytes()
    assert found(tmp_path, raw[: len(raw) // 2], secrets)
    assert found(tmp_path, raw[len(raw) // 2 :], secrets)
    assert found(tmp_path, PERSON[1].bfloat16().view(torch.uint8).numpy().tobytes(), secrets)


@pytest.mark.parametrize(
    "write",
    [
        lambda row: json.dumps(row.tolist()),
        lambda row: json.dumps(row.tolist(), separators=(",", ":")),
        lambda row: ", ".join(f"{value:.4f}" for value in row.tolist()),
        lambda row: " ".join(f"{value:.6f}" for value in row.tolist()),
    ],
)
def test_written_out_embeddings(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    assert found(tmp_path, write(PERSON[2]).encode(), Secrets.of("", PERSON))


def test_somebody_else_is_not_a_hit(tmp_path: Path) -> None:
    other = normalize(torch.randn(1, 64, generator=torch.Generator().manual_seed(1)))
    assert not found(
        tmp_path,
        other.numpy().tobytes() + json.dumps(other.tolist()).encode(),
        Secrets.of("person-0042", PERSON),
    )


def picture(path: Path, **options: object) -> None:
    Image.new("RGB", (8, 8)).save(path, **options)


def test_image_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "somebody"
    text, software = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    text.add_text("Author", "somebody")
    software.add_text("Software", "Matplotlib")
    for name, options in (
        ("a.jpg", {"exif": exif}),
        ("a.png", {"exif": exif}),
        ("b.png", {"pnginfo": text}),
        ("a.webp", {"exif": exif}),
    ):
        picture(tmp_path / name, **options)
        hits = scan_files(tmp_path, [name], Secrets())
        assert [hit.kind for hit in hits] == ["image metadata (EXIF, XMP or text)"], name
        assert hits[0].offset > 0 or not name.endswith(".png")
    for name, options in (("c.png", {}), ("d.png", {"pnginfo": software})):
        picture(tmp_path / name, **options)
        assert scan_files(tmp_path, [name], Secrets()) == [], name


def test_paths_of_a_home_folder(tmp_path: Path) -> None:
    assert (
        found(tmp_path, b'{"source": "/home/' + b'someone/photos"}', Secrets())[0].kind
        == "a path in a user's home"
    )
    assert not found(tmp_path, b"/usr/share/fonts", Secrets())


def test_large_files_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret on the border between two pieces is found, at the right place."""
    monkeypatch.setattr("piu_lora.adapter.scan._CHUNK", 1000)
    monkeypatch.setattr("piu_lora.adapter.scan._OVERLAP", 100)
    for offset in (0, 990, 995, 1000, 3995):
        content = b"." * offset + b"person-0042" + b"." * 2000
        assert [
            hit.offset for hit in found(tmp_path, content, Secrets(texts={"the identity": "person-0042"}))
        ] == [offset]


@pytest.mark.parametrize(
    "form",
    [
        "jÜrgen mÜller".encode(),
        unicodedata.normalize("NFD", "Jürgen Müller").encode(),
        quote("Jürgen Müller").encode(),
        b"J%c3%bcrgen+m%C3%9CLLER",
        "Jürgen Müller".encode("latin-1"),
        "JÜRGEN MÜLLER".encode("utf-16-be"),
        b"j\\u00fcrgen M\\u00FCller",
    ],
)
def test_names_with_other_letters(tmp_path: Path, form: bytes) -> None:
    for known in (unicodedata.normalize(each, "Jürgen Müller") for each in ("NFC", "NFD")):
        assert [hit.offset for hit in found(tmp_path, b"<" + form + b">", Secrets.of(known))] == [1]
    assert not found(tmp_path, b"<" + form + b">", Secrets.of("Jürgen Mülder"))


def test_numbers_and_short_hex_are_not_found_by_chance(tmp_path: Path) -> None:
    digest = b"0beef45219ada" + b"e1" * 26
    for known in ("4521", "beef", "ada"):
        assert not found(
            tmp_path,
            b'{"sha": "' + digest + b'", "x": 0.14521, "y": 145210, "z": [.4521]}',
            Secrets.of(known),
            "a.json",
        )
        assert found(tmp_path, b'{"person": "' + known.encode() + b'"}', Secrets.of(known), "a.json")
    assert found(tmp_path, b"who: 4521.", Secrets.of("4521"), "a.md")


@pytest.mark.parametrize(
    ("secrets", "name"), [(Secrets.of("7"), "id"), (Secrets.of("person-0042", label=7), "label")]
)
def test_small_numbers_only_where_they_stand_for_somebody(
    tmp_path: Path, secrets: Secrets, name: str
) -> None:
    receipt = (
        b'{"format": "piu_lora.adapter/7", "seed": 7, "steps": [7, 0.7], "torch": "2.7.7", "note": "7 layers'
        b' of rank 7"}'
    )
    assert not found(tmp_path, receipt, secrets, "a.json")
    for planted in (b'"%s": 7}' % name.encode(), b"identity 7\n", b"people/7.jpg", b"x/7/y", b'["7"]'):
        assert found(tmp_path, planted, secrets, "a.json"), planted


def test_short_ids_in_the_header_of_a_weights_file(tmp_path: Path) -> None:
    header = b'{"__metadata__": {"who": "Ann"}}'
    weights = len(header).to_bytes(8, "little") + header + b"\x00 Bob \x00" * 9
    assert [hit.offset for hit in found(tmp_path, weights, Secrets.of("Ann"), "a.safetensors")] == [
        weights.index(b"Ann")
    ]
    assert not found(tmp_path, weights, Secrets.of("Bob"), "a.safetensors")


def test_no_label_refuses_a_clean_adapter(adapter_folder: Path) -> None:
    files = [
        each.relative_to(adapter_folder).as_posix() for each in adapter_folder.rglob("*") if each.is_file()
    ]
    assert (
        scan_files(adapter_folder, files, Secrets(labels={str(number): str(number) for number in range(130)}))
        == []
    )


@pytest.mark.parametrize(
    "path", ["photos/erika/1.jpg", "people/faces", "a/b/rank.png", "/home/you/adapter/seed/12.jpg"]
)
def test_usual_folders_and_numbers_refuse_no_clean_adapter(adapter_folder: Path, path: str) -> None:
    files = [
        each.relative_to(adapter_folder).as_posix() for each in adapter_folder.rglob("*") if each.is_file()
    ]
    secrets = Secrets.of(path, label=3)
    assert scan_files(adapter_folder, files, secrets) == []
    (adapter_folder / "x.txt").write_text(f"from {Path(path).absolute()}")
    assert "the source path" in {hit.kind for hit in scan_files(adapter_folder, ["x.txt"], secrets)}


def test_every_part_of_a_path_and_every_photograph(tmp_path: Path) -> None:
    secrets = Secrets.of("clients/Erika M/2024-05/front.jpg", sources=[Path("x/side_view.png")])
    for text in ("clients", "erika m", "FRONT.jpg", "side_view", "2024-05"):
        assert found(tmp_path, f"- {text} -".encode(), secrets), text
    assert not found(tmp_path, b"nothing of it", secrets)


def test_zeros_are_nobody(tmp_path: Path) -> None:
    sparse = torch.zeros(1, 64)
    sparse[0, 10] = 1
    assert not found(tmp_path, b"\x00" * 500 + b"0.0, 0.0, 0.0, 0.0, 0.0", Secrets.of("", sparse))


@pytest.mark.parametrize(
    "write",
    [
        lambda row: str(row.numpy()),
        lambda row: ", ".join(f"{value:.5e}" for value in row.tolist()),
        lambda row: json.dumps({"a": {"b": row.tolist()}}, indent=4),
        lambda row: json.dumps(row.half().tolist()),
        lambda row: ";".join(f"{value:.5f}" for value in row.tolist()),
        lambda row: row.numpy().tobytes().hex(),
        lambda row: base64.urlsafe_b64encode(row.numpy().tobytes()).decode(),
    ],
)
@pytest.mark.parametrize("part", [slice(None), slice(20, 44)])
def test_embeddings_however_written(tmp_path: Path, write, part: slice) -> None:  # type: ignore[no-untyped-def]
    text = write(PERSON[1][part]).encode()
    secrets = Secrets.of("", PERSON)
    assert found(tmp_path, b"{" + text + b"}", secrets)
    assert not found(
        tmp_path,
        b"{" + write(-PERSON[1][part]).encode().replace(b"-", b"+") + b"}",
        Secrets.of("", PERSON[:1].flip(1)),
    )


def test_wrapped_base64(tmp_path: Path) -> None:
    assert found(tmp_path, base64.encodebytes(PERSON[1].numpy().tobytes()), Secrets.of("", PERSON))


def test_more_kinds_of_image_metadata(tmp_path: Path) -> None:
    named, exif, exact = PngImagePlugin.PngInfo(), Image.Exif(), PngImagePlugin.PngInfo()
    named.add_text("Software", "Erika's camera")
    exact.add_text("Software", "Matplotlib version3.9.2, https://matplotlib.org/")
    exif[0x010E] = "somebody"
    with_metadata = (
        ("a.tif", {"description": "somebody"}),
        ("b.tif", {"artist": "somebody"}),
        ("c.jpg", {"comment": b"somebody"}),
        ("d.png", {"pnginfo": named}),
        ("e.webp", {"xmp": b"<x:xmpmeta/>"}),
        ("f.jpg", {"exif": exif}),
    )
    for name, options in with_metadata:
        picture(tmp_path / name, **options)
        (tmp_path / "x.dat").write_bytes((tmp_path / name).read_bytes())
        for each in (name, "x.dat"):  # known by its content, not by its name
            assert [hit.kind for hit in scan_files(tmp_path, [each], Secrets())] == [
                "image metadata (EXIF, XMP or text)"
            ], name
    picture(tmp_path / "j.png", pnginfo=exact)
    assert scan_files(tmp_path, ["j.png"], Secrets()) == []


@pytest.mark.parametrize("name", ["g.tif", "i.webp", "k.gif", "l.jpg", "m.bmp"])
def test_no_picture_but_a_png_is_trusted(tmp_path: Path, name: str) -> None:
    """A push sends one picture, the curve of the loss; what is no PNG is not looked into."""
    picture(tmp_path / name)
    (tmp_path / "x.dat").write_bytes((tmp_path / name).read_bytes())
    for file in (name, "x.dat"):
        (hit,) = scan_files(tmp_path, [file], Secrets())
        assert (hit.offset, hit.kind) == (0, "image metadata (EXIF, XMP or text)")


def test_metadata_behind_the_end_of_a_picture_and_in_a_cut_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "somebody"
    picture(tmp_path / "plain.png")
    picture(tmp_path / "exif.jpg", exif=exif)
    plain, tagged = (tmp_path / "plain.png").read_bytes(), (tmp_path / "exif.jpg").read_bytes()
    assert found(tmp_path, plain + tagged, Secrets(), "a.png")[0].offset > len(plain)
    assert found(tmp_path, tagged[:40], Secrets(), "b.jpg")
    picture(tmp_path / "plain.jpg")
    jpeg = (tmp_path / "plain.jpg").read_bytes()
    assert found(tmp_path, jpeg + tagged, Secrets(), "d.jpg")
    assert found(tmp_path, b"cut" + tagged, Secrets(), "e.png")[0].offset > 3
    for cut in range(0, len(plain), 7):
        assert not found(tmp_path, plain[:cut], Secrets(), "c.png")


def test_many_photographs_and_a_large_file_take_seconds(tmp_path: Path) -> None:
    """A file of random bytes, as weights are: nothing is found by chance, and an alternation of all forms
    would take minutes.
    """
    person = normalize(torch.randn(40, 512, generator=torch.Generator().manual_seed(3)))
    secrets = Secrets.of("clients/erika/front.jpg", person)
    begun = time.perf_counter()
    assert not found(tmp_path, os.urandom(4_000_000), secrets)
    assert time.perf_counter() - begun < 20
