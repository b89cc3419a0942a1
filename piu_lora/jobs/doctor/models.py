"""Weights: of every base, in the package or the Hub cache, and the face pack; and the Hub's token."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from piu_lora.folders import default_pack
from piu_lora.jobs.doctor.finding import Finding, first_line, size
from piu_lora.jobs.doctor.machine import room

if TYPE_CHECKING:
    from piu_lora.model.family import BaseFamily, Download

__all__ = ["REINSTALL", "base_findings", "cache_findings", "pack_findings", "pack_folder", "token_findings"]

REINSTALL = "pip install --force-reinstall --no-deps piu-lora"


def base_findings(family: "BaseFamily") -> Iterator[Finding]:
    """The weights of a family: in the package, or in the Hub cache."""
    if family.folder is not None:
        yield _embedded(family, family.folder)
    for download in family.source.downloads if family.source is not None else ():
        yield _cached(download)


def _embedded(family: "BaseFamily", folder: Callable[[], Path]) -> Finding:
    """A base inside the package: the header of every weight file, and its banks."""
    try:
        from safetensors import safe_open

        files = sorted(folder().rglob("*.safetensors"))
        for path in files:
            with safe_open(str(path), framework="np"):
                pass
        if family.companions is not None:
            family.companions.bank()
            if family.companions.second_bank is not None:
                family.companions.second_bank()
    except Exception as error:
        return Finding("Models", family.name, "missing", f"cannot be opened: {first_line(error)}", REINSTALL)
    total = sum(path.stat().st_size for path in files)
    return Finding("Models", family.name, "ok", f"embedded, {size(total)}")


def _absent(download: "Download") -> dict[str, int]:
    """The files that the Hub cache lacks, with their bytes."""
    from piu_lora import hub

    name, commit = download.repository, download.revision
    return {file: count for file, count in download.files.items() if not hub.cached_file(name, file, commit)}


def _cached(download: "Download") -> Finding:
    """One repository of a base, with the command that fetches what is missing."""
    absent, total, name = _absent(download), len(download.files), download.repository
    value = f"{name}: {total - len(absent)} of {total} files cached"
    if not absent:
        return Finding("Models", download.label, "ok", value)
    value = f"{value}, about {size(sum(absent.values()))} to download"
    fetch = f"hf download {name} --revision {download.revision} {' '.join(absent)}"
    return Finding("Models", download.label, "missing", value, fetch)


def cache_findings(families: Iterable["BaseFamily"]) -> Iterator[Finding]:
    """Room at the Hub cache for what is still to be downloaded."""
    from piu_lora import hub

    sources = [family.source for family in families if family.source is not None]
    needed = sum(sum(_absent(download).values()) for source in sources for download in source.downloads)
    advice = "make room, or set HF_HOME to a folder on another disk that you may write to"
    yield from room("Hub cache", hub.cache_folder(), advice, needed)


def pack_folder(pack: Path | None) -> Path:
    """Where the face pack is: the given folder, ``PIU_LORA_PACK``, or the usual place."""
    return pack or default_pack()


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
