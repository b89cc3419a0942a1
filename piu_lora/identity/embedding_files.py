"""Files of embeddings: NumPy's .npy and .npz, and safetensors; others are named as what they are."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import torch

from piu_lora.errors import BadInput
from piu_lora.foreign import require_regular
from piu_lora.identity.embedding import normalize
from piu_lora.tensors import pointer_advice

__all__ = ["is_embedding_file", "read_embeddings", "split_name"]

_READ = (".npy", ".npz", ".safetensors")
_OTHERS = {
    "a PyTorch file": ".pt .pth .ckpt .bin",
    "a pickle, which is never opened": ".pkl .pickle .joblib",
    "a table": ".csv .tsv .xlsx .parquet .feather",
    "a file of MATLAB or HDF5": ".mat .h5 .hdf5",
    "a JSON file": ".json .jsonl",
}
_KINDS = {suffix: kind for kind, suffixes in _OTHERS.items() for suffix in suffixes.split()}
_MOST = 100_000  # embeddings of one person; what holds more is a bank, or a mistake
_USUAL = 1e-3, 1e6  # lengths of embeddings that float32 holds without a second thought


def split_name(text: str) -> tuple[Path, str]:
    """``FILE.npz:NAME`` as (file, name of the array); the name is empty where none is given."""
    path, _, name = text.rpartition(":")
    if path and name and Path(path).suffix.lower() in _READ and Path(path).is_file():
        return Path(path), name
    return Path(text), ""


def is_embedding_file(path: Path) -> bool:
    """Whether a file is one of embeddings, by its name.

    Raises:
        BadInput: it is one of a kind that is not read.
    """
    suffix = path.suffix.lower()
    if suffix in _KINDS and path.is_file():
        raise BadInput(
            f"{str(path)!r} is {_KINDS[suffix]}; save the embeddings with numpy.save as an array (n, d) "
            "of float32, and pass that .npy file"
        )
    return suffix in _READ


def read_embeddings(path: Path, width: int, name: str = "") -> torch.Tensor:
    """Unit rows (n, d) of a file, in float32.

    Args:
        width: d, the recognizer's.
        name: of the array, where the file holds several.

    Raises:
        BadInput: unreadable, no real numbers, NaN, another shape.
    """
    with _opened(path):
        require_regular(path)
        read = _tensor if path.suffix.lower() == ".safetensors" else _array
        values = read(path, name, width)
    return normalize(_of_usual_length(values.reshape(-1, width)))


def _require_shape(shape: tuple[int, ...], width: int, path: Path) -> None:
    """Before anything is read of a file that may be huge."""
    rows = (1, *shape) if len(shape) == 1 else shape
    if len(rows) != 2 or rows[1] != width or rows[0] == 0:
        turned = len(rows) == 2 and rows[0] == width
        raise BadInput(
            f"{str(path)!r} holds an array of shape {rows}; expected (n, {width}), "
            f"one embedding a row{'; transpose it' if turned else ''}"
        )
    if rows[0] > _MOST:
        raise BadInput(
            f"{str(path)!r} holds {rows[0]:,} embeddings, and those of one person are at most {_MOST:,}; "
            "many people make a bank: `piu-lora bank import`"
        )


@contextmanager
def _opened(path: Path) -> Iterator[None]:
    try:
        yield
    except BadInput:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        RuntimeError,
        zipfile.BadZipFile,
        safetensors.SafetensorError,
    ) as error:
        raise BadInput(
            pointer_advice(path) or f"{str(path)!r} cannot be read as embeddings: {str(error)[:200]}"
        ) from error


def _array(path: Path, name: str, width: int) -> torch.Tensor:
    try:
        # Mapped: a wrong shape or type of a huge file is found before it is read.
        content = np.load(path, allow_pickle=False, mmap_mode="r")
    except ValueError:  # objects cannot be mapped; what is said of them is better without
        content = np.load(path, allow_pickle=False)
    if isinstance(content, np.lib.npyio.NpzFile):
        with content:
            content = _member(content, _choice(list(content.files), name, path), width)
    return _real(content, width, path)


def _member(archive: Any, name: str, width: int) -> npt.NDArray[Any]:
    """An array of an archive, whose few bytes may unfold to gigabytes."""
    size = max(entry.file_size for entry in archive.zip.infolist() if entry.filename in (name, f"{name}.npy"))
    if size > _MOST * width * 16 + 10_000:
        raise ValueError(f"{name!r} unfolds to {size:,} bytes, which is no embeddings of one person")
    array: npt.NDArray[Any] = archive[name]
    return array


def _real(values: npt.NDArray[Any], width: int, path: Path) -> torch.Tensor:
    if values.dtype.kind != "f":
        raise BadInput(
            f"{str(path)!r} holds {values.dtype.name}, and embeddings are real numbers: what was rounded or "
            "cast to another kind has lost its direction; save them as float32"
        )
    _require_shape(values.shape, width, path)
    # Also from the other byte order, and from long double, which torch does not know.
    kind = np.float64 if values.dtype.itemsize > 4 else np.float32
    return torch.from_numpy(np.array(values, dtype=kind, order="C"))


def _tensor(path: Path, name: str, width: int) -> torch.Tensor:
    with safetensors.safe_open(str(path), framework="pt") as file:
        chosen = _choice(list(file.keys()), name, path)
        part = file.get_slice(chosen)
        shape = tuple(part.get_shape())
        if shape and not (kind := part[:0].dtype).is_floating_point:
            raise BadInput(
                f"{str(path)!r} holds {str(kind).removeprefix('torch.')}, "
                "and embeddings are real numbers; save them as float32"
            )
        _require_shape(shape, width, path)
        tensor: torch.Tensor = file.get_tensor(chosen)
    return tensor.double() if tensor.dtype == torch.float64 else tensor.float()


def _choice(names: list[str], name: str, path: Path) -> str:
    if name and name not in names:
        raise BadInput(f"{str(path)!r} holds no {name!r}, only {', '.join(sorted(names)[:6])}")
    if name or len(names) == 1:
        return name or names[0]
    if "embeddings" in names:
        return "embeddings"
    raise BadInput(
        f"{str(path)!r} holds {len(names)} tensors; expected one of embeddings, or its name as "
        f"{path.name}:NAME ({', '.join(sorted(names)[:6])})"
    )


def _of_usual_length(values: torch.Tensor) -> torch.Tensor:
    """Rows that float32 would make infinite or zero, divided by their largest value; others as they are."""
    largest = values.double().abs().amax(dim=1, keepdim=True)
    odd = torch.isfinite(largest) & (largest > 0) & ((largest < _USUAL[0]) | (largest > _USUAL[1]))
    return torch.where(odd, values.double() / largest, values.double()) if odd.any() else values
