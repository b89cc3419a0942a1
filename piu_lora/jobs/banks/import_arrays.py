"""Banks that others made: the arrays of the PIU paper, and the layout of its data set on the Hub."""

import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from piu_lora.adapter import disk_errors, refuse_existing
from piu_lora.errors import BadInput
from piu_lora.foreign import require_regular
from piu_lora.identity import IdentityBank, RecognizerId, normalize
from piu_lora.jobs.banks.geometry import keep_geometry
from piu_lora.writing import make_folder

__all__ = ["import_bank"]

_log = logging.getLogger("piu_lora")
# The names in the official code's data folder, and those of the data set
# edgarcancinoe/celebahq_512_id_clusters.
_NAMES = {
    "embeddings": ("embeddings.npy",),
    "labels": ("labels.npy", "srk_labels_eps0.35.npy"),
    "centroids": ("centroids.npy", "srk_centroids_eps0.35.npy"),
    "centroid_labels": ("centroid_labels.npy",),
}
# Whether raw or unit embeddings are averaged moves a centroid a little; another bank's lies at cosine 0.
_AGREE, _FOREIGN = 0.99, 0.9


@dataclass(frozen=True)
class _Arrays:
    embeddings: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    centroids: npt.NDArray[Any] | None = None
    centroid_labels: npt.NDArray[Any] | None = None


def import_bank(
    source: str | Path, out: str | Path, recognizer: RecognizerId, *, force: bool = False
) -> IdentityBank:
    """Read embeddings.npy and labels.npy (with centroids.npy and centroid_labels.npy where they are) and
    write a bank.

    Label -1 is DBSCAN's noise and is left out. Stored centroids are checked against the embeddings, never
    used. Arrays are read without pickle.

    Args:
        source: a folder with the arrays, or a copy of the Hub data set, where they lie in
            ``paper_artifacts/``.
        recognizer: what made the embeddings; the files do not say.

    Raises:
        BadInput: a file is missing, pickled, of a wrong shape, or holds NaN; centroids of other embeddings.
    """
    target = Path(out)
    refuse_existing(target, force=force)
    arrays = _read(Path(source))
    labelled = np.flatnonzero(arrays.labels != -1)
    if len(labelled) == 0:
        raise BadInput(f"every label in {str(source)!r} is -1 (noise); cluster the embeddings first")
    order = labelled[np.argsort(arrays.labels[labelled], kind="stable")]
    names, labels = np.unique(arrays.labels[order], return_inverse=True)
    _check_rows(arrays, labelled)
    raw = torch.from_numpy(arrays.embeddings[order].astype(np.float32))
    norms = raw.double().norm(dim=1)
    settings = {
        "imported": len(arrays.labels),
        "noise": len(arrays.labels) - len(labelled),
        "raw_norms": _spread(norms),
    }
    bank = IdentityBank(
        normalize(raw),
        torch.from_numpy(labels.astype(np.int32)),
        [str(name) for name in names],
        recognizer,
        settings,
    )
    _check_centroids(bank, arrays)
    keep_geometry(bank)
    with disk_errors(f"the bank {str(target)!r}"):
        make_folder(target.parent)
        bank.save(target)
    return bank


def _spread(values: torch.Tensor) -> list[float]:
    return [round(float(value), 3) for value in (values.min(), values.median(), values.max())]


def _read(folder: Path) -> _Arrays:
    if not folder.is_dir():
        raise BadInput(
            f"{str(folder)!r} is not a folder; pass the one that holds embeddings.npy and labels.npy"
        )
    if (folder / "paper_artifacts").is_dir():
        folder = folder / "paper_artifacts"
    paths = {
        kind: next((folder / name for name in names if (folder / name).is_file()), None)
        for kind, names in _NAMES.items()
    }
    for kind in ("embeddings", "labels"):
        if paths[kind] is None:
            raise BadInput(
                f"{str(folder)!r} holds no {' or '.join(_NAMES[kind])}; "
                "pass the folder of the official data, or of the data set"
            )
    arrays = _Arrays(**{kind: _load(path) for kind, path in paths.items() if path is not None})
    if arrays.embeddings.dtype.kind != "f":
        raise BadInput(
            f"embeddings in {str(folder)!r} are {arrays.embeddings.dtype}, not real numbers: what is rounded "
            "has lost its direction; save them as float32"
        )
    if arrays.embeddings.ndim != 2 or arrays.labels.shape != arrays.embeddings.shape[:1]:
        raise BadInput(
            f"embeddings of shape {arrays.embeddings.shape} "
            f"and labels of shape {arrays.labels.shape} in {str(folder)!r} do not belong "
            "together; expected (n, d) and (n,)"
        )
    if not np.issubdtype(arrays.labels.dtype, np.integer):
        raise BadInput(
            f"labels in {str(folder)!r} are {arrays.labels.dtype}; expected whole numbers, -1 for noise"
        )
    return arrays


def _check_rows(arrays: _Arrays, labelled: npt.NDArray[Any]) -> None:
    """By the row in the file, which is where somebody will look."""
    rows = arrays.embeddings[labelled].astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1) | ~rows.any(axis=1))
    if len(bad):
        fault = "is a zero vector" if np.isfinite(rows[bad[0]]).all() else "holds NaN or infinity"
        raise BadInput(f"embedding {labelled[bad[0]]} {fault}; make it again from its photograph")


def _load(path: Path) -> npt.NDArray[Any]:
    try:
        array = np.load(require_regular(path), allow_pickle=False)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"{str(path)!r} cannot be read as a NumPy array: {error}; pickled arrays are never opened"
        ) from error
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.number):
        kind = array.dtype if isinstance(array, np.ndarray) else "an archive of arrays"
        raise BadInput(f"{str(path)!r} holds {kind}; expected one array of numbers in NumPy's .npy format")
    return array


def _check_centroids(bank: IdentityBank, arrays: _Arrays) -> None:
    """Stored centroids that are not the means of these embeddings belong to another bank or clustering."""
    if arrays.centroids is None:
        return
    names = _centroid_names(arrays, len(arrays.centroids))
    if (
        arrays.centroids.ndim != 2
        or len(arrays.centroids) != len(names)
        or arrays.centroids.shape[1] != bank.width
    ):
        raise BadInput(
            f"centroids of shape {arrays.centroids.shape} "
            f"do not fit {len(names)} labels of width {bank.width}"
        )
    rows = [(row, bank.index(str(name))) for row, name in enumerate(names) if str(name) in bank]
    if not rows:
        raise BadInput("no centroid label is a label of the embeddings: they are not of one bank")
    stored = normalize(torch.from_numpy(arrays.centroids[[row for row, _ in rows]].astype(np.float32)))
    cosines = (stored * bank.centroids[[row for _, row in rows]]).sum(dim=1)
    identity = bank.ids[rows[int(cosines.argmin())][1]]
    worst = (
        f"the stored centroid of identity {identity} has cosine {float(cosines.min()):.3f} "
        "to the mean of its embeddings"
    )
    if float(cosines.median()) < _FOREIGN:
        raise BadInput(
            f"{worst}, and most others differ as well: embeddings and centroids are not of one bank"
        )
    if float(cosines.min()) < _AGREE:
        _log.warning("%s; centroids are computed anew", worst)


def _centroid_names(arrays: _Arrays, count: int) -> npt.NDArray[Any]:
    """The label of each centroid; where they are not stored, those of the embeddings in order, with or
    without the noise.
    """
    names = np.unique(arrays.labels) if arrays.centroid_labels is None else arrays.centroid_labels
    if arrays.centroid_labels is None and len(names) == count + 1:
        names = names[names != -1]
    if names.ndim != 1 or not np.issubdtype(names.dtype, np.integer):
        raise BadInput(
            f"centroid labels are {names.dtype} of shape {names.shape}; expected whole numbers, (m,)"
        )
    return names
