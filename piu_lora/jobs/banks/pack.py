"""Setting up the face pack of Arc2Face: a SCRFD detector and Arc2Face's own recognizer in one folder."""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from piu_lora.errors import BadInput
from piu_lora.folders import default_pack
from piu_lora.hub import HubFiles
from piu_lora.identity import FaceReader, RecognizerId
from piu_lora.model.families.arc2face import ARC2FACE
from piu_lora.writing import disk_errors, make_folder, write_file

__all__ = ["DETECTOR", "DETECTOR_SOURCE", "RECOGNIZER", "set_up_pack"]

DETECTOR, RECOGNIZER = "scrfd_10g_bnkps.onnx", "arcface.onnx"
# The detector of insightface's antelopev2, as the official PIU code fetches it.
DETECTOR_SOURCE = ("DIAMONIK7777/antelopev2", "ba0c3e10f4548361eb9a63265d87ce1140ab5a05")


def set_up_pack(
    pack: str | Path | None, antelopev2: str | Path | None = None, arcface: str | Path | None = None
) -> tuple[Path, RecognizerId]:
    """Put detector and recognizer into a folder, from files at hand or from the Hub, and check that
    insightface uses them.

    What is there already is kept. Nothing else of antelopev2 is taken: its own recognizer would win over
    Arc2Face's silently.

    Args:
        pack: the folder; by default where every command looks for it.
        antelopev2: folder or zip of insightface's pack, for the detector; by default it comes from the Hub.
        arcface: Arc2Face's arcface.onnx; by default from the Hub, at the pinned revision.

    Returns:
        The folder, and which recognizer it holds.

    Raises:
        BadInput: a named file is missing, or the pack holds another recognizer.
        EnvironmentProblem: the Hub cannot be asked.
    """
    folder = Path(pack) if pack else default_pack()
    with disk_errors(f"the face pack {str(folder)!r}"):
        make_folder(folder)
        try:
            _place(folder / DETECTOR, lambda: _detector(antelopev2))
            _place(folder / RECOGNIZER, lambda: _recognizer(arcface))
        finally:
            # An empty folder would be taken for a broken pack.
            if not any(folder.iterdir()):
                folder.rmdir()
    return folder, FaceReader(folder, recognizer=RECOGNIZER).id


def _place(target: Path, content: Callable[[], bytes]) -> None:
    if target.exists():
        return
    write_file(target, content())


def _recognizer(arcface: str | Path | None) -> bytes:
    if arcface is None:
        return HubFiles(*ARC2FACE).get(RECOGNIZER).read_bytes()
    if not Path(arcface).is_file():
        raise BadInput(f"arcface = {str(arcface)!r} is not a file; pass the arcface.onnx of {ARC2FACE[0]}")
    return Path(arcface).read_bytes()


def _detector(antelopev2: str | Path | None) -> bytes:
    if antelopev2 is None:
        return HubFiles(*DETECTOR_SOURCE).get(DETECTOR).read_bytes()
    source = Path(antelopev2)
    if source.is_dir():
        # The published zip holds a folder of its own name.
        detectors = sorted(source.rglob(DETECTOR))
        if detectors:
            return detectors[0].read_bytes()
    elif zipfile.is_zipfile(source):
        try:
            with zipfile.ZipFile(source) as archive:
                for name in archive.namelist():
                    if Path(name).name == DETECTOR:
                        return archive.read(name)
        except (zipfile.BadZipFile, zlib.error) as error:
            raise BadInput(f"antelopev2 = {str(source)!r} is damaged: {error}; download it again") from error
    raise BadInput(
        f"antelopev2 = {str(source)!r} holds no {DETECTOR}; pass insightface's antelopev2 as a folder or zip"
    )
