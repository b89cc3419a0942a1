"""Weights, in the package or the Hub cache; the face pack; what killed runs left."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from piu_lora.folders import default_pack
from piu_lora.jobs.doctor.finding import Finding, first_line

if TYPE_CHECKING:
    from piu_lora.model.family import BaseFamily

__all__ = ["base_findings", "leftover_findings", "pack_findings", "seconds_an_image"]


def base_findings(family: "BaseFamily") -> Iterator[Finding]:
    """The weights of a family: in the package, where an image is made of them, or in the Hub cache, with the
    command that fetches what is missing.
    """
    if family.folder is not None:
        try:
            value = f"embedded, one image in {seconds_an_image(family.name):.2f} s"
            yield Finding("Models", family.name, "ok", value)
        except Exception as error:
            value = f"cannot be used: {first_line(error)}"
            reinstall = "pip install --force-reinstall --no-deps piu-lora"
            yield Finding("Models", family.name, "missing", value, reinstall)
    for download in family.source.downloads if family.source is not None else ():
        from piu_lora import hub

        name, revision, sizes = download.repository, download.revision, download.files
        absent = [file for file in sizes if not hub.cached_file(name, file, revision)]
        value = f"{name}: {len(sizes) - len(absent)} of {len(sizes)} files cached"
        if absent:
            room = decimal(sum(sizes[file] for file in absent), precision=2)
            fetch = f"hf download {name} --revision {revision} {' '.join(absent)}"
            yield Finding("Models", download.label, "missing", f"{value}, about {room} to download", fetch)
        else:
            yield Finding("Models", download.label, "ok", value)


def seconds_an_image(
    base: str = "mini", rounds: int = 3, clock: Callable[[], float] = time.perf_counter
) -> float:
    """For one image of an embedded base at its default steps, alone in its batch: the fastest of some
    rounds, without what loading and the first image take. The documentation states times as multiples of it.

    Args:
        clock: seconds; ``time.process_time`` for those of the processor.
    """
    import torch

    from piu_lora.config import ForgetConfig
    from piu_lora.model import find_family, generate, load_base

    family, pipe = find_family(base), load_base(base, device="cpu")
    assert family.companions is not None  # every embedded base brings people
    settings = ForgetConfig.preset(family).evaluation
    embedding = family.companions.bank().embeddings[:1].to(torch.float32)

    def one_image() -> float:
        begun = clock()
        generate(pipe, embedding, [0], steps=settings.steps, guidance=settings.guidance)
        return clock() - begun

    one_image()
    return min(one_image() for _ in range(rounds))


def leftover_findings(folder: Path, *, clean: bool) -> Iterator[Finding]:
    """What killed runs left in a folder, perhaps pictures or embeddings; ``clean`` removes it."""
    from piu_lora.adapter.leftovers import find_leftovers, remove_leftover

    for leftover in find_leftovers(folder):
        text = f"{leftover.path}: {leftover.kind}"
        if clean:
            remove_leftover(leftover)
            outcome = f"put back to {leftover.restore}" if leftover.restore else "removed"
            yield Finding("Disk", "left-overs", "ok", f"{text}, {outcome}")
        else:
            advice = f'piu-lora doctor --clean --out "{folder}"'
            yield Finding("Disk", "left-overs", "warning", text, advice)


def pack_findings(pack: Path | None) -> Iterator[Finding]:
    """The detector, and Arc2Face's own recognizer; without them no photograph can be read."""
    folder = pack or default_pack()
    detectors = [path for start in ("scrfd", "det_", "retinaface") for path in folder.glob(f"{start}*.onnx")]
    for part, models in (("detector", detectors), ("arcface.onnx", [*folder.glob("arcface.onnx")])):
        if models:
            yield Finding("Face pack", part, "ok", str(models[0]))
        else:
            value = f"not in {folder}" if folder.is_dir() else f"{folder} does not exist"
            advice = f'piu-lora bank models --pack "{folder}"'
            yield Finding("Face pack", part, "missing", f"{value}; photographs need it", advice)
