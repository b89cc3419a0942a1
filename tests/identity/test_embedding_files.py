"""Embedding files as people save them: the right direction, or refused by name."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

from piu_lora.errors import BadInput
from piu_lora.identity import IdentityBank, normalize, resolve_identity
from tests.tiny import WIDTH

Rows = npt.NDArray[Any]
RAW = np.random.default_rng(0).normal(size=(4, WIDTH)).astype(np.float32) * 20
UNIT = normalize(torch.from_numpy(RAW))


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        (lambda rows: rows, 0),
        (lambda rows: rows.astype("f8"), 1e-6),
        (lambda rows: rows.astype(">f4"), 0),
        (lambda rows: rows.astype(">f8"), 1e-6),
        (lambda rows: rows.astype(np.longdouble), 1e-6),
        (lambda rows: (rows / 20).astype("f2"), 1e-3),
        (np.asfortranarray, 0),
        (lambda rows: rows.astype("f8") * 1e200, 1e-6),
        (lambda rows: rows * np.float32(1e-30), 1e-6),
    ],
)
def test_every_kind_of_real_numbers(
    bank: IdentityBank, tmp_path: Path, change: Callable[[Rows], Rows], tolerance: float
) -> None:
    np.save(tmp_path / "e.npy", change(RAW))
    found = resolve_identity(tmp_path / "e.npy", bank, None).embeddings
    assert (found - UNIT).abs().max() <= tolerance


@pytest.mark.parametrize("kind", ["i1", "u1", "u2", "i8", "c8", "?", "U16"])
def test_other_numbers_are_refused(bank: IdentityBank, tmp_path: Path, kind: str) -> None:
    """Whole numbers and complex ones would give another direction without a word."""
    np.save(tmp_path / "e.npy", RAW.astype(kind))
    with pytest.raises(BadInput, match=r"e\.npy' holds .*embeddings are real numbers"):
        resolve_identity(tmp_path / "e.npy", bank, None)


OBJECTS = np.array([{"embedding": row} for row in RAW])


@pytest.mark.parametrize("rows", [OBJECTS, np.zeros(4, [("e", "f4", WIDTH)]), RAW[:0], RAW[:, None]])
def test_other_arrays_are_refused(bank: IdentityBank, tmp_path: Path, rows: Rows) -> None:
    np.save(tmp_path / "e.npy", rows)
    with pytest.raises(BadInput, match=r"e\.npy"):
        resolve_identity(tmp_path / "e.npy", bank, None)


def test_an_array_that_lies_on_its_side(bank: IdentityBank, tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", RAW.T.copy())
    with pytest.raises(BadInput, match=rf"expected \(n, {WIDTH}\).*transpose it"):
        resolve_identity(tmp_path / "e.npy", bank, None)


@pytest.mark.parametrize("name", ["e.npz", "E.NPZ", "named_wrongly.npy"])
def test_archives_of_one_array(bank: IdentityBank, tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        np.savez(file, RAW)
    assert torch.equal(resolve_identity(tmp_path / name, bank, None).embeddings, UNIT)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_one_of_several_arrays_by_name(bank: IdentityBank, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"e.{kind}"
    content = {"mine": RAW, "labels": np.arange(4)}
    if kind == "npz":
        np.savez(path, **content)
    else:
        save_file({name: torch.from_numpy(rows) for name, rows in content.items()}, path)
    assert torch.equal(resolve_identity(f"{path}:mine", bank, None).embeddings, UNIT)
    with pytest.raises(BadInput, match=rf"2 tensors.*e\.{kind}:NAME \(labels, mine\)"):
        resolve_identity(path, bank, None)
    with pytest.raises(BadInput, match=r"holds no 'other', only labels, mine"):
        resolve_identity(f"{path}:other", bank, None)
    with pytest.raises(BadInput, match="embeddings are real numbers"):
        resolve_identity(f"{path}:labels", bank, None)


def test_several_arrays_of_which_one_says_so(bank: IdentityBank, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", embeddings=RAW, labels=np.arange(4))
    assert torch.equal(resolve_identity(tmp_path / "e.npz", bank, None).embeddings, UNIT)


def test_any_case(bank: IdentityBank, tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", RAW)
    (tmp_path / "e.npy").rename(tmp_path / "E.NPY")
    assert torch.equal(resolve_identity(tmp_path / "E.NPY", bank, None).embeddings, UNIT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_tensors_of_other_precision(bank: IdentityBank, tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"e": torch.from_numpy(RAW).to(dtype)}, tmp_path / "e.safetensors")
    assert (resolve_identity(tmp_path / "e.safetensors", bank, None).embeddings - UNIT).abs().max() < 1e-2


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("e.pt", "a PyTorch file"),
        ("e.CSV", "a table"),
        ("e.pkl", "a pickle, which is never opened"),
        ("e.mat", "a file of MATLAB or HDF5"),
        ("e.json", "a JSON file"),
    ],
)
def test_other_files_are_named_as_what_they_are(
    bank: IdentityBank, tmp_path: Path, name: str, what: str
) -> None:
    (tmp_path / name).write_bytes(pickle.dumps([1]))
    with pytest.raises(BadInput, match=rf"{what}; save the embeddings with numpy\.save"):
        resolve_identity(tmp_path / name, bank, None)


def test_a_pointer_of_git_lfs(bank: IdentityBank, tmp_path: Path) -> None:
    (tmp_path / "e.npy").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(BadInput, match="git lfs pull"):
        resolve_identity(tmp_path / "e.npy", bank, None)
