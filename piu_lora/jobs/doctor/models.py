"""Weights: the embedded base, the files of Arc2Face in the Hub cache, the face pack."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from piu_lora.jobs.doctor.finding import Finding, first_line, size
from piu_lora.jobs.doctor.hub import cached_file, token_present

__all__ = [
    "Shelf",
    "arc2face_shelves",
    "look",
    "mini_findings",
    "pack_findings",
    "pack_folder",
    "shelf_findings",
    "token_findings",
]

SECTION, PACK, TOKEN = "Models", "Face pack", "Token"
ARC2FACE_LABEL, SD15_LABEL = "Arc2Face", "Stable Diffusion 1.5"
RECOGNIZER, RECOGNIZER_BYTES = "arcface.onnx", 260_000_000
# Expected bytes, rounded: they only say how long the download takes and whether it fits.
_SMALL = 10_000
ARC2FACE_FILES = {
    "arc2face/config.json": 2_000, "arc2face/diffusion_pytorch_model.safetensors": 3_440_000_000,
    "encoder/config.json": 1_000, "encoder/pytorch_model.bin": 490_000_000,
}  # fmt: skip
SD15_FILES = {
    "scheduler/scheduler_config.json": 1_000, "tokenizer/vocab.json": 1_060_000,
    "tokenizer/merges.txt": 525_000, "tokenizer/special_tokens_map.json": 1_000, "tokenizer/tokenizer_config.json": 1_000,
    "vae/config.json": 1_000, "vae/diffusion_pytorch_model.safetensors": 335_000_000,
}  # fmt: skip


@dataclass(frozen=True)
class Shelf:
    """One repository at its pinned revision: bytes of the files that are cached, expected bytes of those that
    are not.
    """

    label: str
    repository: str
    revision: str
    cached: Mapping[str, int]
    absent: Mapping[str, int]

    @property
    def to_download(self) -> int:
        """Bytes, about."""
        return sum(self.absent.values())


def look(label: str, repository: str, revision: str, files: Mapping[str, int]) -> Shelf:
    """Look for the files of a repository in the Hub cache."""
    paths = {file: cached_file(repository, file, revision) for file in files}
    cached = {file: path.stat().st_size for file, path in paths.items() if path is not None}
    return Shelf(
        label,
        repository,
        revision,
        cached,
        {file: count for file, count in files.items() if file not in cached},
    )


def arc2face_shelves() -> list[Shelf]:
    """What Arc2Face is loaded from."""
    from piu_lora.model.families.arc2face import ARC2FACE, SD15

    return [look(ARC2FACE_LABEL, *ARC2FACE, ARC2FACE_FILES), look(SD15_LABEL, *SD15, SD15_FILES)]


def shelf_findings(shelf: Shelf) -> Iterator[Finding]:
    """The repository with the one command that completes it, then each file."""
    total = len(shelf.cached) + len(shelf.absent)
    held = f"{shelf.repository}: {len(shelf.cached)} of {total} files cached ({size(sum(shelf.cached.values()))})"
    if shelf.absent:
        value = f"{held}, about {size(shelf.to_download)} to download"
        yield Finding(
            SECTION, shelf.label, "missing", value, download(shelf.repository, shelf.revision, *shelf.absent)
        )
    else:
        yield Finding(SECTION, shelf.label, "ok", held)
    for file, count in shelf.cached.items():
        yield Finding(SECTION, file, "ok", size(count))
    for file, count in shelf.absent.items():
        yield Finding(
            SECTION, file, "missing", f"not cached; about {size(count)}" if count > _SMALL else "not cached"
        )


def download(repository: str, revision: str, *files: str, folder: Path | None = None) -> str:
    """The command that fetches files into the Hub cache, or into a folder."""
    into = ["--local-dir", f'"{folder}"'] if folder else []
    return " ".join(["hf download", repository, "--revision", revision, *into, *files])


def mini_findings() -> Iterator[Finding]:
    """The embedded base. Importing its module proves that torch, diffusers, transformers and peft go
    together.
    """
    again = "pip install --force-reinstall --no-deps piu-lora"
    try:
        from piu_lora.model import mini
    except Exception as error:
        yield Finding(
            SECTION,
            "mini",
            "missing",
            f"cannot be imported: {first_line(error)}",
            "mend what the section Python lists",
        )
        return
    try:
        total = _open_embedded(mini.folder().parent)
        mini.conditioning_bank()
        mini.evaluating_bank()
    except Exception as error:
        yield Finding(SECTION, "mini", "missing", f"damaged: {first_line(error)}", again)
        return
    yield Finding(SECTION, "mini", "ok", f"embedded, {size(total)}")


def _open_embedded(weights: Path) -> int:
    """Read the header of every weight file, which shows a truncated one; their bytes together."""
    from safetensors import safe_open

    tensors = [weights / "base" / part for part in ("unet", "vae", "text_encoder")]
    names = [
        folder
        / ("model.safetensors" if folder.name == "text_encoder" else "diffusion_pytorch_model.safetensors")
        for folder in tensors
    ]
    for path in names:
        with safe_open(str(path), framework="np"):
            pass
    recognizers = [weights / f"{name}.onnx" for name in ("conditioning", "evaluating")]
    return sum(path.stat().st_size for path in [*names, *recognizers])


def pack_folder(pack: Path | None) -> Path:
    """Where the face pack is: as given, ``PIU_LORA_PACK``, or the usual place."""
    stated = os.environ.get("PIU_LORA_PACK")
    return pack or (Path(stated) if stated else Path.home() / ".insightface" / "models" / "arc2face")


_SET_UP = "piu-lora bank models (pass --pack DIR or set PIU_LORA_PACK if it lies elsewhere)"


def pack_findings(folder: Path) -> Iterator[Finding]:
    """The ONNX files of the pack: a detector, known by its name, and Arc2Face's recognizer."""
    from piu_lora.model.families.arc2face import ARC2FACE

    names = sorted(path.name for path in folder.glob("*.onnx"))
    where = f"{folder}: {', '.join(names) or ('no .onnx file' if folder.is_dir() else 'no such folder')}"
    yield Finding(PACK, "folder", "ok" if names else "missing", where, "" if names else _SET_UP)
    detectors = [name for name in names if name.startswith(("scrfd", "det_", "retinaface"))]
    advice = f'piu-lora bank models --pack "{folder}"'
    yield Finding(
        PACK,
        "detector",
        "ok" if detectors else "missing",
        ", ".join(detectors) or "none",
        "" if detectors else advice,
    )
    if RECOGNIZER in names:
        yield Finding(PACK, RECOGNIZER, "ok", size((folder / RECOGNIZER).stat().st_size))
        return
    kept = cached_file(ARC2FACE[0], RECOGNIZER, ARC2FACE[1])
    fetch = f'cp "{kept}" "{folder}/"' if kept else download(*ARC2FACE, RECOGNIZER, folder=folder)
    yield Finding(
        PACK,
        RECOGNIZER,
        "missing",
        "in the Hub cache only" if kept else f"not there; about {size(RECOGNIZER_BYTES)}",
        fetch,
    )


def token_findings() -> Iterator[Finding]:
    """Whether there is a Hub token. Of an error only the kind is shown: its message might quote the token."""
    advice = "hf auth login"
    try:
        present = token_present()
    except Exception as error:
        yield Finding(
            TOKEN, "Hub token", "warning", f"could not be determined: {type(error).__name__}", advice
        )
        return
    source = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "stored login"
    yield Finding(
        TOKEN,
        "Hub token",
        "ok" if present else "missing",
        f"present ({source})" if present else "none",
        "" if present else advice,
    )
