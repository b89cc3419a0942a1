"""The arrays of the PIU paper, in both layouts, whole and damaged."""

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from piu_lora.errors import BadInput, Incompatible
from piu_lora.identity import IdentityBank, RecognizerId, normalize
from piu_lora.jobs.banks.import_arrays import import_bank
from piu_lora.jobs.forget import forget
from piu_lora.model import mini

ARCFACE = RecognizerId("arcface.onnx", "ab" * 32)
Arrays = dict[str, npt.NDArray[Any]]
PAPER = {"embeddings": "embeddings", "labels": "srk_labels_eps0.35", "centroids": "srk_centroids_eps0.35"}


def arrays(people: int = 6, shots: int = 4, noise: int = 3, width: int = 32) -> Arrays:
    """What the official code writes: raw embeddings in the order of the photographs, labels, centroids of the
    labels.
    """
    generator = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(np.arange(people), shots), np.full(noise, -1)]).astype(np.int64)
    centres = generator.normal(size=(people + 1, width))
    rows = 20 * (centres[labels] + 0.2 * generator.normal(size=(len(labels), width)))
    order = generator.permutation(len(labels))
    found = {"embeddings": rows[order].astype(np.float32), "labels": labels[order]}
    return {**found, **means(found)}


def means(found: Arrays) -> Arrays:
    names = np.unique(found["labels"])
    units = found["embeddings"] / np.linalg.norm(found["embeddings"], axis=1, keepdims=True)
    centroids = np.stack([units[found["labels"] == name].mean(axis=0) for name in names])
    return {
        "centroids": centroids / np.linalg.norm(centroids, axis=1, keepdims=True),
        "centroid_labels": names,
    }


def write(folder: Path, found: Arrays) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in found.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def write_paper(folder: Path, found: Arrays) -> Path:
    write(folder / "paper_artifacts", {PAPER[name]: array for name, array in found.items() if name in PAPER})
    return folder


def refused(folder: Path, match: str) -> None:
    out = folder.parent / "bank.safetensors"
    with pytest.raises(BadInput, match=match):
        import_bank(folder, out, ARCFACE)
    assert not out.exists()


# --- what is there


def test_both_layouts_give_the_same_bank(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = arrays()
    official = import_bank(write(tmp_path / "official", found), tmp_path / "a" / "bank.safetensors", ARCFACE)
    paper = import_bank(write_paper(tmp_path / "paper", found), tmp_path / "b.safetensors", ARCFACE)
    inner = import_bank(tmp_path / "paper" / "paper_artifacts", tmp_path / "c.safetensors", ARCFACE)
    assert (
        official.digest
        == paper.digest
        == inner.digest
        == IdentityBank.load(tmp_path / "b.safetensors").digest
    )
    assert {record.message for record in caplog.records} == {
        "fewer than 50 people have several photographs, too few to measure how these differ: the profile "
        "'arcface-generic' stands in"
    }


def test_rows_are_those_of_each_label_in_their_order_and_noise_is_left_out(tmp_path: Path) -> None:
    found = arrays()
    bank = import_bank(write(tmp_path / "in", found), tmp_path / "bank.safetensors", ARCFACE)
    assert bank.ids == ["0", "1", "2", "3", "4", "5"]
    assert len(bank.embeddings) == 24
    for name in bank.ids:
        rows = torch.from_numpy(found["embeddings"][found["labels"] == int(name)])
        assert torch.allclose(bank.of(name), normalize(rows), atol=1e-6)
    assert bank.settings["imported"] == 27
    assert bank.settings["noise"] == 3
    low, middle, high = bank.settings["raw_norms"]
    norms = np.linalg.norm(found["embeddings"][found["labels"] != -1], axis=1)
    assert (low, middle, high) == pytest.approx((norms.min(), np.sort(norms)[11], norms.max()), abs=2e-3)


def test_recognizer_is_recorded(tmp_path: Path) -> None:
    import_bank(write(tmp_path / "in", arrays()), tmp_path / "bank.safetensors", ARCFACE)
    assert IdentityBank.load(tmp_path / "bank.safetensors").recognizer == ARCFACE


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint16])
def test_labels_of_every_kind_of_whole_number(tmp_path: Path, kind: type[Any]) -> None:
    found = arrays(noise=0)
    plain = import_bank(write(tmp_path / "plain", found), tmp_path / "a.safetensors", ARCFACE)
    found["labels"] = found["labels"].astype(kind)
    assert (
        import_bank(write(tmp_path / "in", found), tmp_path / "b.safetensors", ARCFACE).digest == plain.digest
    )


@pytest.mark.parametrize("kind", [np.float16, np.float64, ">f4"])
def test_embeddings_of_every_precision(tmp_path: Path, kind: Any) -> None:
    found = arrays()
    plain = import_bank(write(tmp_path / "plain", found), tmp_path / "a.safetensors", ARCFACE)
    found["embeddings"] = found["embeddings"].astype(kind)
    other = import_bank(write(tmp_path / "in", found), tmp_path / "b.safetensors", ARCFACE)
    assert other.embeddings.dtype == torch.float32
    assert torch.allclose(other.embeddings, plain.embeddings, atol=1e-3)
    assert other.ids == plain.ids


def test_labels_with_gaps_keep_their_names(tmp_path: Path) -> None:
    found = arrays(noise=0)
    found["labels"] = found["labels"] * 100 + 7
    found |= means(found)
    bank = import_bank(write(tmp_path / "in", found), tmp_path / "bank.safetensors", ARCFACE)
    assert bank.ids == ["7", "107", "207", "307", "407", "507"]


def test_centroids_are_optional(tmp_path: Path) -> None:
    found = {name: array for name, array in arrays().items() if not name.startswith("centroid")}
    assert len(import_bank(write(tmp_path / "in", found), tmp_path / "bank.safetensors", ARCFACE)) == 6


def test_centroids_without_one_for_the_noise(tmp_path: Path) -> None:
    """The layout of the data set names no centroid labels: with noise, a centroid for each identity is as
    good as one for each label.
    """
    found = arrays()
    found["centroids"] = found["centroids"][found["centroid_labels"] != -1]
    assert len(import_bank(write_paper(tmp_path / "in", found), tmp_path / "bank.safetensors", ARCFACE)) == 6


# --- centroids of something else


def test_one_other_centroid_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = arrays()
    found["centroids"][4] = np.eye(32)[0]  # of label 3: the noise comes first
    with caplog.at_level(logging.WARNING):
        bank = import_bank(write(tmp_path / "in", found), tmp_path / "bank.safetensors", ARCFACE)
    assert "stored centroid of identity 3 has cosine" in caplog.text
    assert "computed anew" in caplog.text
    assert not torch.allclose(bank.centroids[3], torch.eye(32)[0], atol=0.1)


def test_centroids_of_another_bank_are_refused(tmp_path: Path) -> None:
    found = arrays()
    found["centroids"] = np.roll(found["centroids"], 1, axis=0)
    refused(write(tmp_path / "in", found), "are not of one bank")


@pytest.mark.parametrize(
    "centroids",
    [
        np.zeros((7, 32), np.float32),
        np.full((7, 32), np.nan, np.float32),
        np.ones((5, 32)),
        np.ones((7, 8)),
        np.ones(7),
    ],
)
def test_unfit_centroids_are_refused(tmp_path: Path, centroids: npt.NDArray[Any]) -> None:
    refused(write(tmp_path / "in", {**arrays(), "centroids": centroids}), "centroid|embedding")


@pytest.mark.parametrize(
    "names", [np.arange(100, 107), np.arange(-1, 6)[:, None], np.arange(-1, 6).astype(np.float64)]
)
def test_centroid_labels_that_name_nobody_are_refused(tmp_path: Path, names: npt.NDArray[Any]) -> None:
    refused(write(tmp_path / "in", {**arrays(), "centroid_labels": names}), "centroid")


# --- damaged files


def pickled(path: Path, marker: Path, *, as_array: bool) -> None:
    """A file that makes ``marker`` when it is unpickled."""

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    if as_array:
        np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(Trap()))


@pytest.mark.parametrize("as_array", [True, False])
@pytest.mark.parametrize("name", ["embeddings", "labels", "centroids", "centroid_labels"])
def test_pickled_arrays_are_refused_and_not_run(tmp_path: Path, name: str, as_array: bool) -> None:
    folder, marker = write(tmp_path / "in", arrays()), tmp_path / "run"
    pickled(folder / f"{name}.npy", marker, as_array=as_array)
    refused(folder, rf"{name}.npy' cannot be read as a NumPy array.*pickled arrays are never opened")
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04 no archive", b"not an array at all"])
def test_damaged_arrays_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path / "in", arrays())
    (folder / "labels.npy").write_bytes(content)
    refused(folder, "labels.npy' cannot be read as a NumPy array")


def test_truncated_arrays_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", arrays())
    content = (folder / "embeddings.npy").read_bytes()
    (folder / "embeddings.npy").write_bytes(content[: len(content) // 2])
    refused(folder, "embeddings.npy' cannot be read as a NumPy array")


def test_an_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", arrays())
    with (folder / "embeddings.npy").open("wb") as file:
        np.savez(file, arrays()["embeddings"])
    refused(folder, r"embeddings.npy")


@pytest.mark.parametrize("name", ["embeddings", "labels"])
def test_missing_files_are_refused(tmp_path: Path, name: str) -> None:
    found = arrays()
    del found[name]
    refused(write(tmp_path / "in", found), f"holds no {name}.npy")


def test_no_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "'.*nowhere' is not a folder")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"labels": np.zeros(26, np.int64)}, r"\(27, 32\) and labels of shape \(26,\)"),
        ({"labels": np.zeros((27, 1), np.int64)}, r"labels of shape \(27, 1\)"),
        ({"embeddings": np.zeros(27)}, r"embeddings of shape \(27,\)"),
        ({"embeddings": np.zeros((27, 2, 16))}, r"embeddings of shape \(27, 2, 16\)"),
        ({"labels": np.zeros(27)}, "labels in .* are float64; expected whole numbers"),
        ({"labels": np.full(27, -1)}, "every label in .* is -1"),
        ({"embeddings": np.full((27, 32), "face")}, "embeddings"),
    ],
)
def test_wrong_shapes_and_kinds_are_refused(tmp_path: Path, changed: Arrays, match: str) -> None:
    refused(write(tmp_path / "in", {**arrays(), **changed}), match)


@pytest.mark.parametrize(
    ("value", "match"), [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (0, "zero vector")]
)
def test_rows_without_a_direction_are_refused(tmp_path: Path, value: float, match: str) -> None:
    found = arrays()
    found["embeddings"][int(np.flatnonzero(found["labels"] == 2)[0])] = value
    refused(write(tmp_path / "in", found), match)


def test_the_named_row_is_that_of_the_file(tmp_path: Path) -> None:
    found = arrays()
    row = int(np.flatnonzero(found["labels"] == 5)[0])
    found["embeddings"][row] = np.nan
    refused(write(tmp_path / "in", found), rf"embedding {row} ")


def test_an_unusable_row_of_the_noise_does_not_matter(tmp_path: Path) -> None:
    found = arrays()
    found["embeddings"][found["labels"] == -1] = np.nan
    del found["centroids"]
    assert len(import_bank(write(tmp_path / "in", found), tmp_path / "bank.safetensors", ARCFACE)) == 6


def test_an_existing_bank_is_kept(tmp_path: Path) -> None:
    folder, out = write(tmp_path / "in", arrays()), tmp_path / "bank.safetensors"
    out.write_text("mine")
    with pytest.raises(BadInput, match=r"exists already"):
        import_bank(folder, out, ARCFACE)
    assert out.read_text() == "mine"
    import_bank(folder, out, ARCFACE, force=True)
    assert len(IdentityBank.load(out)) == 6


# --- used


def test_forgetting_against_a_bank_of_another_recognizer_names_both_digests(tmp_path: Path) -> None:
    import_bank(write(tmp_path / "in", arrays(width=128)), tmp_path / "bank.safetensors", ARCFACE)
    with pytest.raises(Incompatible) as refusal:
        forget("3", "mini", tmp_path / "adapter", bank=tmp_path / "bank.safetensors")
    for recognizer in (ARCFACE, mini.conditioning_bank().recognizer):
        assert recognizer.name in str(refusal.value)
        assert recognizer.sha256[:12] in str(refusal.value)
    assert not (tmp_path / "adapter").exists()
