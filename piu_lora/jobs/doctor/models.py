"""Weights: the embedded base, the files of Arc2Face in the Hub cache, the face pack; and the Hub's token."""

import os
from collections.abc import Iterator
from pathlib import Path

from piu_lora.jobs.doctor.finding import Finding, first_line, size
from piu_lora.jobs.doctor.machine import room

__all__ = [
    "arc2face_findings",
    "cache_findings",
    "mini_findings",
    "pack_findings",
    "pack_folder",
    "token_findings",
]

# Expected bytes, rounded: they say how long a download takes and whether it fits.
ARC2FACE_FILES = {
    "arc2face/config.json": 2_000,
    "arc2face/diffusion_pytorch_model.safetensors": 3_440_000_000,
    "encoder/config.json": 1_000,
    "encoder/pytorch_model.bin": 490_000_000,
}
SD15_FILES = {
    "scheduler/scheduler_config.json": 1_000,
    "tokenizer/vocab.json": 1_060_000,
    "tokenizer/merges.txt": 525_000,
    "tokenizer/special_tokens_map.json": 1_000,
    "tokenizer/tokenizer_config.json": 1_000,
    "vae/config.json": 1_000,
    "vae/diffusion_pytorch_model.safetensors": 335_000_000,
}


def mini_findings() -> Iterator[Finding]:
    """The embedded base: its module, the header of every weight file, its banks."""
    again = "pip install --force-reinstall --no-deps piu-lora"
    try:
        from safetensors import safe_open

        from piu_lora.model import mini

        files = sorted(mini.folder().rglob("*.safetensors"))
        for path in files:
            with safe_open(str(path), framework="np"):
                pass
        mini.conditioning_bank()
        mini.evaluating_bank()
    except Exception as error:
        yield Finding("Models", "mini", "missing", f"cannot be opened: {first_line(error)}", again)
    else:
        total = sum(path.stat().st_size for path in files)
        yield Finding("Models", "mini", "ok", f"embedded, {size(total)}")


def _absent() -> Iterator[tuple[str, str, str, dict[str, int], int]]:
    """The repositories of Arc2Face: label, id, revision, what the cache lacks, number of files."""
    from piu_lora import hub
    from piu_lora.model.families.arc2face import ARC2FACE, SD15

    repositories = (("Arc2Face", ARC2FACE, ARC2FACE_FILES), ("Stable Diffusion 1.5", SD15, SD15_FILES))
    for label, (name, commit), files in repositories:
        absent = {file: count for file, count in files.items() if not hub.cached_file(name, file, commit)}
        yield label, name, commit, absent, len(files)


def arc2face_findings() -> Iterator[Finding]:
    """The two repositories that Arc2Face is loaded from, with the command that fetches what is missing."""
    for label, name, commit, absent, total in _absent():
        value = f"{name}: {total - len(absent)} of {total} files cached"
        if absent:
            value = f"{value}, about {size(sum(absent.values()))} to download"
            fetch = f"hf download {name} --revision {commit} {' '.join(absent)}"
            yield Finding("Models", label, "missing", value, fetch)
        else:
            yield Finding("Models", label, "ok", value)


def cache_findings(*, with_arc2face: bool) -> Iterator[Finding]:
    """Room at the Hub cache for what is still to be downloaded."""
    from piu_lora import hub

    coming = sum(sum(absent.values()) for *_, absent, _ in _absent()) if with_arc2face else 0
    advice = "make room, or set HF_HOME to a folder on another disk that you may write to"
    yield from room("Hub cache", hub.cache_folder(), advice, coming)


def pack_folder(pack: Path | None) -> Path:
    """Where the face pack is: the given folder, ``PIU_LORA_PACK``, or the usual place."""
    variable = os.environ.get("PIU_LORA_PACK")
    return pack or (Path(variable) if variable else Path.home() / ".insightface" / "models" / "arc2face")


def pack_findings(pack: Path | None) -> Iterator[Finding]:
    """The detector, and Arc2Face's own recognizer."""
    folder = pack_folder(pack)
    names = sorted(path.name for path in folder.glob("*.onnx"))
    detectors = [name for name in names if name.startswith(("scrfd", "det_", "retinaface"))]
    recognizers = [name for name in names if name == "arcface.onnx"]
    for part, present in (("detector", detectors), ("arcface.onnx", recognizers)):
        if present:
            yield Finding("Face pack", part, "ok", str(folder / present[0]))
        else:
            value = f"not in {folder}" if folder.is_dir() else f"{folder} does not exist"
            yield Finding("Face pack", part, "missing", value, f'piu-lora bank models --pack "{folder}"')


def token_findings() -> Iterator[Finding]:
    """Whether there is a Hub token. Of an error only the kind is shown: its message might quote the token."""
    try:
        from piu_lora import hub

        present = hub.token_present()
    except Exception as error:
        value = f"could not be determined: {type(error).__name__}"
        yield Finding("Token", "Hub token", "warning", value, "hf auth login")
        return
    source = "HF_TOKEN" if os.environ.get("HF_TOKEN") else "stored login"
    if present:
        yield Finding("Token", "Hub token", "ok", f"present ({source})")
    else:
        yield Finding("Token", "Hub token", "missing", "none", "hf auth login")
