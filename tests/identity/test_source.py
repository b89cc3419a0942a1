from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from piu_lora.errors import BadInput, Incompatible
from piu_lora.identity import IdentityBank, RecognizerId, normalize, resolve_identity
from piu_lora.identity.faces import Face
from piu_lora.identity.recognizer import read_aligned
from tests.tiny import RECOGNIZER, WIDTH


class FakeRecognizer:
    """Embeds a portrait by its mean colour."""

    def __init__(self, identity: RecognizerId = RECOGNIZER) -> None:
        self.id = identity

    def read(self, path: Path) -> list[Face]:
        mean = read_aligned(path).mean(dim=(1, 2))[None]
        return [Face(normalize(torch.nn.functional.pad(mean, (0, WIDTH - 3)))[0], (0, 0, 1, 1), 1.0)]

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


RAW = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0)) * 3
UNIT = RAW.double().numpy() / np.linalg.norm(RAW.double().numpy(), axis=1, keepdims=True)


def paint(path: Path, colour: str, size: tuple[int, int] = (32, 32)) -> None:
    Image.new("RGB", size, colour).save(path)


def test_an_id_of_the_bank(bank: IdentityBank) -> None:
    subject = resolve_identity("person-004", bank, None)
    assert (subject.row, subject.photos) == (4, ())
    assert torch.equal(subject.embeddings, bank.of("person-004"))


def test_an_id_wins_over_a_file_of_that_name(
    bank: IdentityBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("person-004").mkdir()
    assert resolve_identity("person-004", bank, None).row == 4


def test_nobody_suggests_the_nearest_ids(bank: IdentityBank) -> None:
    with pytest.raises(
        BadInput, match=r"identity 'person-04' is neither a file nor an id of the bank: did you mean person-0"
    ):
        resolve_identity("person-04", bank, None)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_npy_is_read_and_normalised(bank: IdentityBank, tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "them.npy", RAW.numpy().astype(dtype))
    subject = resolve_identity(tmp_path / "them.npy", bank, None)
    assert (subject.row, subject.photos, subject.embeddings.dtype) == (None, (), torch.float32)
    np.testing.assert_allclose(subject.embeddings, UNIT, atol=1e-6)


def test_one_flat_embedding_is_one_row(bank: IdentityBank, tmp_path: Path) -> None:
    np.save(tmp_path / "them.npy", RAW[0].numpy())
    np.testing.assert_allclose(
        resolve_identity(str(tmp_path / "them.npy"), bank, None).embeddings, UNIT[:1], atol=1e-6
    )


def test_safetensors_is_read_and_normalised(bank: IdentityBank, tmp_path: Path) -> None:
    save_file({"any name": RAW.half()}, tmp_path / "them.safetensors")
    np.testing.assert_allclose(
        resolve_identity(tmp_path / "them.safetensors", bank, None).embeddings, UNIT, atol=2e-3
    )


def test_safetensors_with_two_tensors_is_refused(bank: IdentityBank, tmp_path: Path) -> None:
    save_file({"a": RAW, "b": RAW.clone()}, tmp_path / "them.safetensors")
    with pytest.raises(BadInput, match=r"them\.safetensors' holds 2 tensors; expected one"):
        resolve_identity(tmp_path / "them.safetensors", bank, None)


@pytest.mark.parametrize("shape", [(3, WIDTH + 1), (WIDTH - 1,), (0, WIDTH), (), (1, 2, WIDTH)])
def test_another_shape_is_quoted(bank: IdentityBank, tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "them.npy", np.ones(shape, np.float32))
    with pytest.raises(BadInput, match=rf"shape \(.*\); expected \(n, {WIDTH}\)"):
        resolve_identity(tmp_path / "them.npy", bank, None)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "embedding 1 holds NaN"), (0, "embedding 1 is a zero vector")]
)
def test_rows_without_direction_are_refused(
    bank: IdentityBank, tmp_path: Path, value: float, message: str
) -> None:
    rows = np.ones((3, WIDTH), np.float32)
    rows[1] = value
    np.save(tmp_path / "them.npy", rows)
    with pytest.raises(BadInput, match=message):
        resolve_identity(tmp_path / "them.npy", bank, None)


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_rubbish_is_refused(bank: IdentityBank, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"them.{suffix}"
    path.write_bytes(b"no embeddings at all")
    with pytest.raises(BadInput, match="cannot be read as embeddings"):
        resolve_identity(path, bank, None)


def test_pickles_are_never_opened(bank: IdentityBank, tmp_path: Path) -> None:
    np.save(tmp_path / "them.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match=r"cannot be read as embeddings.*allow_pickle"):
        resolve_identity(tmp_path / "them.npy", bank, None)


def test_an_empty_npy_is_refused(bank: IdentityBank, tmp_path: Path) -> None:
    (tmp_path / "them.npy").touch()
    with pytest.raises(BadInput, match="cannot be read as embeddings"):
        resolve_identity(tmp_path / "them.npy", bank, None)


def test_an_empty_identity_is_nobody(
    bank: IdentityBank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "a.png", "red")
    with pytest.raises(BadInput):
        resolve_identity("", bank, FakeRecognizer())


def test_an_identity_too_long_for_a_file_name_is_nobody(bank: IdentityBank) -> None:
    with pytest.raises(BadInput):
        resolve_identity("x" * 300, bank, None)


def test_a_folder_of_photographs_is_read_in_order(bank: IdentityBank, tmp_path: Path) -> None:
    for name, colour in (("b.JPG", "#ff0000"), ("a.png", "#ff6000"), ("c.webp", "#ff0060")):
        paint(tmp_path / name, colour)
    (tmp_path / "notes.txt").write_text("not a photograph")
    subject = resolve_identity(tmp_path, bank, FakeRecognizer())
    assert [path.name for path in subject.photos] == ["a.png", "b.JPG", "c.webp"]
    assert subject.row is None
    assert torch.equal(
        subject.embeddings, torch.stack([FakeRecognizer().read(path)[0].embedding for path in subject.photos])
    )
    assert (subject.embeddings[:, 1:3] > 0.2).tolist() == [[True, False], [False, False], [False, True]]


def test_unusable_photographs_and_other_people_are_left_out(
    bank: IdentityBank, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, colour in (("a.png", "#ff0000"), ("b.png", "#ff6000"), ("other.png", "#00ff00")):
        paint(tmp_path / name, colour)
    paint(tmp_path / "oblong.png", "#ff0000", (40, 60))
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    subject = resolve_identity(tmp_path, bank, FakeRecognizer(), linked=0.6)
    assert [path.name for path in subject.photos] == ["a.png", "b.png"]
    assert len(subject.embeddings) == 2
    for left_out in (
        "3 of 5 photographs left out",
        "cut.png",
        "40 x 60 pixels",
        "other.png': somebody else (cosine below 0.6 to the others)",
    ):
        assert left_out in caplog.text


def test_photographs_of_two_people_alike_in_number_are_refused(bank: IdentityBank, tmp_path: Path) -> None:
    for name, colour in (("a.png", "red"), ("b.png", "lime")):
        paint(tmp_path / name, colour)
    with pytest.raises(BadInput, match=r"different people .*a\.png', '.*b\.png'; take the others out"):
        resolve_identity(tmp_path, bank, FakeRecognizer())


def test_a_single_photograph(bank: IdentityBank, tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "red")
    subject = resolve_identity(tmp_path / "a.png", bank, FakeRecognizer())
    assert subject.photos == (tmp_path / "a.png",)
    assert torch.equal(subject.embeddings, torch.eye(WIDTH)[:1])


def test_a_folder_without_photographs_is_refused(bank: IdentityBank, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(
        BadInput, match=r"holds no photographs \(\.bmp, \.gif, \.jpeg, \.jpg, \.png, \.tif, \.tiff, \.webp\)"
    ):
        resolve_identity(tmp_path, bank, FakeRecognizer())


def test_photographs_need_a_recognizer_and_the_banks_own(bank: IdentityBank, tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "red")
    with pytest.raises(
        BadInput, match=r"no face pack is at hand to read them; pass pack=DIR .*or a \.npy file"
    ):
        resolve_identity(tmp_path, bank, None)
    with pytest.raises(
        Incompatible, match=r"the bank uses recognizer 'tiny' .* but the face pack uses 'other'"
    ):
        resolve_identity(tmp_path, bank, FakeRecognizer(RecognizerId("other", "11" * 32)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "content", "reason"),
    [
        ((40, 60), None, "40 x 60 pixels, and this base takes square"),
        ((32, 32), b"not a picture", "not a picture"),
        ((4, 4), None, "too small"),
    ],
)
def test_if_no_photograph_is_usable_each_is_named_with_its_reason(
    bank: IdentityBank, tmp_path: Path, size: tuple[int, int], content: bytes | None, reason: str
) -> None:
    for name in ("a.png", "b.png"):
        paint(tmp_path / name, "red", size)
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(
        BadInput, match=rf"none of 2 photographs is usable: '.*a\.png': {reason}.*; '.*b\.png': {reason}"
    ):
        resolve_identity(tmp_path, bank, FakeRecognizer())
