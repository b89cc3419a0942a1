"""The rendered data set: identities x photographs, written once to a memory-mapped file."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track

from piu_lora.model.mini.render import SIZE, render, sample_identities, sample_nuisance

__all__ = ["PER_IDENTITY", "TRAIN_IDENTITIES", "open_training_set", "portraits", "to_unit"]

TRAIN_IDENTITIES = 8000
PER_IDENTITY = 12
# Seeds of the people: training people and bank people never share a generator.
TRAIN_SEED, BANK_SEED = 1, 2


def people(count: int, seed: int) -> torch.Tensor:
    """The identity parameters of ``count`` people, (count, p) float32."""
    return sample_identities(count, torch.Generator().manual_seed(seed))


def portraits(person: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """``count`` photographs of one person (p,), (count, 3, SIZE, SIZE) uint8 RGB."""
    generator = torch.Generator().manual_seed(seed)
    return render(person.expand(count, -1), sample_nuisance(count, generator), generator)


def _render_block(seed: int, rows: torch.Tensor, first: int) -> npt.NDArray[np.uint8]:
    torch.set_num_threads(1)
    blocks = [portraits(person, PER_IDENTITY, seed * 10_000_019 + first + i) for i, person in enumerate(rows)]
    return torch.stack(blocks).numpy()


def write_training_set(folder: Path, processes: int) -> Path:
    """Render the training set into ``folder/faces.npy``, (identities, PER_IDENTITY, 3, SIZE, SIZE) uint8; 2.6
    GB.
    """
    path = folder / "faces.npy"
    if path.exists():
        return path
    temporary = path.with_suffix(".tmp.npy")
    shape = (TRAIN_IDENTITIES, PER_IDENTITY, 3, SIZE, SIZE)
    faces = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
    everyone, block = people(TRAIN_IDENTITIES, TRAIN_SEED), 40
    starts = range(0, TRAIN_IDENTITIES, block)
    with ProcessPoolExecutor(processes) as pool:
        jobs = pool.map(
            _render_block, [TRAIN_SEED] * len(starts), [everyone[s : s + block] for s in starts], starts
        )
        for start, rendered in track(zip(starts, jobs, strict=True), "render", len(starts)):
            faces[start : start + block] = rendered
    faces.flush()
    temporary.replace(path)
    return path


def open_training_set(folder: Path) -> npt.NDArray[np.uint8]:
    """The rendered training set, memory-mapped."""
    faces: npt.NDArray[np.uint8] = np.load(folder / "faces.npy", mmap_mode="r")
    return faces


def to_unit(pictures: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 RGB to float32 in [-1, 1]."""
    return torch.from_numpy(np.array(pictures)).float().div_(127.5).sub_(1.0)
