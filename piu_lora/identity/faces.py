"""Real photographs: insightface's detector and recognizer; the only importer of insightface."""

import contextlib
import hashlib
import importlib.metadata
import io
import logging
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.foreign import require_regular
from piu_lora.identity.bank import RecognizerId
from piu_lora.identity.pictures import UnusablePhoto, read_picture
from piu_lora.threads import without_spinning

__all__ = ["Face", "FaceReader", "Several"]

_log = logging.getLogger("piu_lora")
Several = Literal["largest", "only", "all"]
Picture = npt.NDArray[np.uint8]
# Tried one after the other until a face is found: edge of the detector's input, and border as a share of the
# picture. Faces that fill the picture are found at the small size or with room around them.
_ATTEMPTS = ((640, 0.0), (320, 0.0), (640, 0.5), (320, 1.0))
_GREY = 127
_LOADING = threading.Lock()
_HELP = "`piu-lora bank models` sets one up"


@dataclass(frozen=True)
class Face:
    """One face: (d,) float32 unit embedding, box (x0, y0, x1, y1) in pixels of the picture, detector score in
    [0, 1].
    """

    embedding: torch.Tensor
    box: tuple[float, float, float, float]
    score: float

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


class FaceReader:
    """Photographs in, unit-norm ArcFace embeddings out.

    Safe to call from several threads: each has its own sessions, and one face is embedded at a time, because
    the result of int8 models depends on the batch.

    Args:
        pack: folder with one SCRFD detector and one recognizer as ONNX files.
        recognizer: file name of the recognizer to use, where the pack holds several.
        providers: onnxruntime execution providers, first choice first.
        several: what to do with a photograph of several faces: take the largest, refuse it, or take all.
        threads: of a session; 0 takes as many as torch has.

    Raises:
        EnvironmentProblem: there is no such pack, or it lacks a model.
        BadInput: it holds several recognizers, or damaged files; a provider that is not there.
    """

    def __init__(
        self,
        pack: Path | str,
        *,
        recognizer: str | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        several: Several = "largest",
        threads: int = 0,
    ) -> None:
        self.pack, self.providers, self.several, self.threads = Path(pack), list(providers), several, threads
        if several not in ("largest", "only", "all"):
            raise BadInput(f"faces.several = {several!r} is unknown; pass largest, only or all")
        _check_providers(self.providers)
        self._detector, self._recognizer = _models(self.pack, recognizer)
        self._local = threading.local()

    @cached_property
    def id(self) -> RecognizerId:
        """File name and SHA-256 of the recognizer that is used."""
        return RecognizerId(self._recognizer.name, _sha256(self._recognizer))

    @property
    def name(self) -> str:
        """The recognizer's file name."""
        return self._recognizer.name

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What shapes the embeddings, for a bank to record."""
        return {
            "detector": self._detector.name,
            "detector_sha256": _sha256(self._detector),
            "attempts": [list(each) for each in _ATTEMPTS],
            "several": self.several,
            "insightface": importlib.metadata.version("insightface"),
        }

    def faces(self, picture: Picture) -> list[Face]:
        """All faces of a picture, the largest first.

        Args:
            picture: (h, w, 3) uint8 RGB in [0, 255].
        """
        # insightface takes BGR; RGB would raise nothing and give other embeddings.
        swapped = np.ascontiguousarray(picture[..., ::-1])
        for size, border in _ATTEMPTS:
            found = self._detect(swapped, size, border)
            if found:
                return sorted(found, key=lambda face: -face.area)
        return []

    def read(self, path: Path) -> list[Face]:
        """The faces of a photograph that count, by the policy for several.

        Raises:
            UnusablePhoto: the file is not a picture, holds no face, or several where one is asked for.
        """
        faces = self.faces(read_picture(path))
        if not faces:
            raise UnusablePhoto(path, "no face found")
        if len(faces) == 1 or self.several == "all":
            return faces
        if self.several == "only":
            raise UnusablePhoto(path, f"{len(faces)} faces, and only one is allowed")
        _log.warning("%s shows %d faces; the largest is taken", path, len(faces))
        return faces[:1]

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        """Embed generated pictures.

        Args:
            faces: (n, 3, h, w) RGB in [0, 1].

        Returns:
            (n, d) float32: the unit embedding of the largest face, or zeros where there is none.
        """
        pixels = (faces.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        rows = torch.zeros(len(pixels), self._width)
        for row, picture in enumerate(pixels):
            found = self.faces(picture)
            if found:
                rows[row] = found[0].embedding
        return rows

    @cached_property
    def _width(self) -> int:
        return int(self._app.models["recognition"].output_shape[1])

    @property
    def _app(self) -> Any:
        """Insightface's application of this thread: its detector keeps state between calls."""
        if not hasattr(self._local, "app"):
            self._local.app = self._load()
        return self._local.app

    def _load(self) -> Any:
        options = _session_options(self.threads)
        # It warns once a face of what its dependencies will change.
        warnings.filterwarnings("ignore", module=r"insightface\.")
        with _LOADING, contextlib.redirect_stdout(io.StringIO()):  # insightface prints while it loads
            from insightface.app import FaceAnalysis

            app = FaceAnalysis(
                name=str(self.pack),
                allowed_modules=["detection", "recognition"],
                providers=self.providers,
                sess_options=options,
            )
            app.prepare(ctx_id=0, det_size=(_ATTEMPTS[0][0],) * 2)
        used = Path(app.models["recognition"].model_file) if "recognition" in app.models else None
        if used is None or used.name != self._recognizer.name:
            raise BadInput(
                f"insightface uses {used.name if used else 'no recognizer'} of the face pack "
                f"{str(self.pack)!r}, not "
                f"{self._recognizer.name}; remove the other recognizers from it"
            )
        return app

    def _detect(self, picture: Picture, size: int, border: float) -> list[Face]:
        margin = round(border * max(picture.shape[:2]))
        padded = (
            np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), constant_values=_GREY)
            if margin
            else picture
        )
        boxes, points = self._app.det_model.detect(
            padded, input_size=(size, size), max_num=0, metric="default"
        )
        found = (self._face(padded, row, kps, margin) for row, kps in zip(boxes, points, strict=True))
        return [face for face in found if face is not None]

    def _face(
        self, picture: Picture, row: npt.NDArray[np.float32], points: npt.NDArray[np.float32], margin: int
    ) -> Face | None:
        from insightface.app.common import Face as Found

        found = Found(bbox=row[:4], kps=points, det_score=row[4])
        self._app.models["recognition"].get(picture, found)
        if found.embedding is None or not np.isfinite(found.embedding).all() or not found.embedding.any():
            return None
        embedding = torch.from_numpy(np.asarray(found.embedding, dtype=np.float32))
        x0, y0, x1, y1 = (float(value) - margin for value in row[:4])
        return Face(torch.nn.functional.normalize(embedding, dim=0), (x0, y0, x1, y1), float(row[4]))


def _models(pack: Path, wanted: str | None) -> tuple[Path, Path]:
    """Detector and recognizer of a pack. Looked for first: insightface would download a missing pack, or stop
    without a word.
    """
    if not pack.is_dir():
        raise EnvironmentProblem(f"there is no face pack at {str(pack)!r}; {_HELP}, or pass pack=DIR")
    files = sorted(pack.glob("*.onnx"))
    nested = sorted(pack.glob("*/*.onnx"))
    if not files:
        hint = f"it is nested: pass {str(nested[0].parent)!r}" if nested else _HELP
        raise EnvironmentProblem(f"the face pack {str(pack)!r} holds no .onnx file; {hint}")
    kinds = {file: _kind(require_regular(file)) for file in files}
    detectors = [file for file, kind in kinds.items() if kind == "detection"]
    recognizers = [file for file, kind in kinds.items() if kind == "recognition"]
    if not detectors or not recognizers:
        lacking = "detector" if not detectors else "recognizer"
        raise EnvironmentProblem(
            f"the face pack {str(pack)!r} holds no {lacking}, "
            f"only {', '.join(file.name for file in files)}; {_HELP}"
        )
    if wanted is not None and wanted not in [file.name for file in recognizers]:
        raise EnvironmentProblem(
            f"the face pack {str(pack)!r} holds no recognizer {wanted}, only {recognizers[0].name}; {_HELP}"
        )
    if len(recognizers) > 1:
        names = ", ".join(file.name for file in recognizers)
        raise BadInput(
            f"the face pack {str(pack)!r} holds several recognizers ({names}), "
            "and insightface would silently use the first; "
            "keep one (arcface.onnx for Arc2Face), move the others away"
        )
    return detectors[0], recognizers[0]


def _kind(file: Path) -> str:
    """``recognition``, ``detection`` or ``other``, by the shapes that insightface itself goes by."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes are private
        raise BadInput(
            f"{str(file)!r} cannot be read as an ONNX model: {str(error).splitlines()[0]}; "
            "fetch the face pack again"
        ) from error
    shape, outputs = session.get_inputs()[0].shape, session.get_outputs()
    if len(outputs) >= 5:
        return "detection"
    # 192 is the landmark models' size, 96 that of age and gender.
    square = len(shape) == 4 and shape[2] == shape[3] and isinstance(shape[2], int)
    fits = square and shape[2] >= 112 and shape[2] % 16 == 0 and shape[2] != 192
    return "recognition" if fits and len(session.get_inputs()) == 1 else "other"


def _check_providers(providers: Sequence[str]) -> None:
    import onnxruntime

    offered = onnxruntime.get_available_providers()
    for provider in providers:
        if provider not in offered:
            raise BadInput(
                f"onnxruntime offers no {provider!r} here, only {', '.join(offered)}; "
                "`piu-lora doctor` says why"
            )


def _session_options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return without_spinning(options, threads)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
