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
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch

from piu_lora.errors import BadInput
from piu_lora.identity.bank import RecognizerId
from piu_lora.identity.face_pack import check_providers, models_of
from piu_lora.identity.photo_files import printable
from piu_lora.identity.pictures import UnusablePhoto, read_picture
from piu_lora.identity.second_look import SURE, TURNS, Detection, best_turn, lies, tiles, without_doubles
from piu_lora.telemetry import import_onnxruntime
from piu_lora.threads import without_spinning

__all__ = ["Face", "FaceReader", "Several", "as_pixels", "check_several", "faces_that_count", "say_turned"]

_log = logging.getLogger("piu_lora")
Several = Literal["largest", "only", "all"]
Picture = npt.NDArray[np.uint8]
# Tried one after the other until a face is found: edge of the detector's input, and border as a share of the
# picture. Faces that fill the picture are found at the small size or with room around them.
_ATTEMPTS = ((640, 0.0), (320, 0.0), (640, 0.5), (320, 1.0))
# The sizes at which turns are compared, and what a face in a part of a large picture must score.
_SIZES, _IN_TILE = (640, 320), 0.6
_GREY = 127
_LOADING = threading.Lock()


@dataclass(frozen=True)
class Face:
    """One face: (d,) float32 unit embedding, box (x0, y0, x1, y1) in pixels of the picture, detector score in
    [0, 1], and by how many degrees the picture was turned to make it upright (counter-clockwise).
    """

    embedding: torch.Tensor
    box: tuple[float, float, float, float]
    score: float
    turned: int = 0

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


class _Models(NamedTuple):
    detector: Any
    recognizer: Any


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
        check_several(several)
        check_providers(self.providers)
        self._detector, self._recognizer = models_of(self.pack, recognizer)
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
            "attempts": [list(attempt) for attempt in _ATTEMPTS],
            "turned_below": SURE,
            "several": self.several,
            "insightface": importlib.metadata.version("insightface"),
        }

    def faces(self, picture: Picture) -> list[Face]:
        """All faces of a picture, the largest first.

        Args:
            picture: (h, w, 3) uint8 RGB in [0, 255].
        """
        swapped = _swapped(picture)
        return self._embedded(swapped, self._detections(swapped))

    def read(self, path: Path) -> list[Face]:
        """The faces of a photograph that count, by the policy for several.

        One that lost its orientation tag is turned; where no face is found, a large photograph is looked
        through part by part.

        Raises:
            UnusablePhoto: the file is not a picture, holds no face, or several where one is asked for.
        """
        return faces_that_count(path, self._upright(path, read_picture(path)), self.several)

    def _upright(self, path: Path, picture: Picture) -> list[Face]:
        """The faces, after the turn that makes them upright."""
        swapped = _swapped(picture)
        detections = self._detections(swapped)
        # A detector finds faces upside down, too, and aligns them wrongly: the embedding is somebody else's.
        turn = 0 if _is_sure(detections[0] if detections else None) else self._turn(swapped)
        if turn:
            say_turned(path, turn)
            swapped = np.ascontiguousarray(np.rot90(swapped, turn // 90))
            detections = self._detections(swapped)
        return self._embedded(swapped, detections or self._in_tiles(swapped), turn)

    def _turn(self, picture: Picture) -> int:
        detections: dict[int, Detection | None] = {}
        for turn in TURNS:
            turned = np.ascontiguousarray(np.rot90(picture, turn // 90))
            largest = [max(self._detect(turned, size, 0.0), key=_area, default=None) for size in _SIZES]
            detections[turn] = max(filter(None, largest), key=lambda face: face.score, default=None)
            if turn == 0 and _is_sure(detections[turn]):
                return 0
        return best_turn(detections)

    def _detections(self, picture: Picture) -> list[Detection]:
        """At the first attempt that finds any, the largest first."""
        for size, border in _ATTEMPTS:
            if detections := self._detect(picture, size, border):
                return sorted(detections, key=lambda face: -face.area)
        return []

    def _in_tiles(self, picture: Picture) -> list[Detection]:
        """Small faces of a large picture, which the detector sees too small in the whole."""
        detections = []
        for y0, x0, y1, x1 in tiles(*picture.shape[:2]):
            for face in self._detect(np.ascontiguousarray(picture[y0:y1, x0:x1]), _SIZES[0], 0.0):
                if face.score >= _IN_TILE:
                    shift = np.array([x0, y0], dtype=np.float32)
                    box = face.box + np.tile(shift, 2)
                    detections.append(face._replace(box=box, points=face.points + shift))
        return sorted(without_doubles(detections), key=lambda face: -face.area)

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        """Embed generated pictures.

        Args:
            faces: (n, 3, h, w) RGB in [0, 1].

        Returns:
            (n, d) float32: the unit embedding of the largest face, or zeros where there is none.
        """
        rows = torch.zeros(len(faces), self._width)
        for row, picture in enumerate(as_pixels(faces)):
            detected = self.faces(picture)
            if detected:
                rows[row] = detected[0].embedding
        return rows

    @cached_property
    def _width(self) -> int:
        return int(self._models.recognizer.output_shape[1])

    @property
    def _models(self) -> "_Models":
        """The models of this thread: insightface's detector keeps state between calls."""
        if not hasattr(self._local, "models"):
            self._local.models = self._load()
        models: _Models = self._local.models
        return models

    def _load(self) -> "_Models":
        # It warns once a face of what its dependencies will change.
        warnings.filterwarnings("ignore", module=r"insightface\.")
        options = {"providers": self.providers, "sess_options": _session_options(self.threads)}
        with _LOADING, contextlib.redirect_stdout(io.StringIO()):  # insightface prints while it loads
            # One by one: its FaceAnalysis opens every model of a folder, and a broken one that nobody needs
            # stops it.
            from insightface.model_zoo.model_zoo import ModelRouter

            detector, recognizer = (
                ModelRouter(str(file)).get_model(**options) for file in (self._detector, self._recognizer)
            )
            detector.prepare(0, input_size=(_ATTEMPTS[0][0],) * 2, det_thresh=0.5)
            recognizer.prepare(0)
        return _Models(detector, recognizer)

    def _detect(self, picture: Picture, size: int, border: float) -> list[Detection]:
        """Faces of a BGR picture, with a border as a share of its longer side around it."""
        margin = round(border * max(picture.shape[:2]))
        boxes, points = self._models.detector.detect(
            _padded(picture, margin), input_size=(size, size), max_num=0, metric="default"
        )
        return [
            Detection(row[:4], float(row[4]), five, margin) for row, five in zip(boxes, points, strict=True)
        ]

    def _embedded(self, picture: Picture, detections: Sequence[Detection], turned: int = 0) -> list[Face]:
        faces = (self._face(picture, face, turned) for face in detections)
        return [face for face in faces if face is not None]

    def _face(self, picture: Picture, face: Detection, turned: int) -> Face | None:
        from insightface.app.common import Face as Found

        record = Found(bbox=face.box, kps=face.points, det_score=face.score)
        self._models.recognizer.get(_padded(picture, face.margin), record)
        if record.embedding is None or not np.isfinite(record.embedding).all() or not record.embedding.any():
            return None
        embedding = torch.from_numpy(np.asarray(record.embedding, dtype=np.float32))
        x0, y0, x1, y1 = (float(value) - face.margin for value in face.box)
        return Face(torch.nn.functional.normalize(embedding, dim=0), (x0, y0, x1, y1), face.score, turned)


def check_several(several: str) -> None:
    """Raise ``BadInput`` for a policy that is unknown."""
    if several not in get_args(Several):
        raise BadInput(f"faces.several = {several!r} is unknown; pass largest, only or all")


def faces_that_count(path: Path, faces: list[Face], several: Several) -> list[Face]:
    """Of the faces of a photograph, the largest first, those that the policy for several takes.

    Raises:
        UnusablePhoto: there is none, or several where one is asked for.
    """
    if not faces:
        raise UnusablePhoto(path, "no face found")
    if len(faces) == 1 or several == "all":
        return faces
    if several == "only":
        raise UnusablePhoto(path, f"{len(faces)} faces, and only one is allowed")
    _log.warning("%s shows %d faces; the largest is taken", printable(path), len(faces))
    return faces[:1]


def say_turned(path: Path, turn: int) -> None:
    """Warn of a photograph that was turned, by degrees counter-clockwise."""
    _log.warning("%s is not upright; it was turned by %d degrees", printable(path), turn)


def as_pixels(faces: torch.Tensor) -> Picture:
    """(n, h, w, 3) uint8 of generated pictures (n, 3, h, w) in [0, 1]."""
    return (faces.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _swapped(picture: Picture) -> Picture:
    """BGR, which insightface takes; RGB would raise nothing and give other embeddings."""
    return np.ascontiguousarray(picture[..., ::-1])


def _padded(picture: Picture, margin: int) -> Picture:
    edges = ((margin, margin), (margin, margin), (0, 0))
    return np.pad(picture, edges, constant_values=_GREY) if margin else picture


def _is_sure(face: Detection | None) -> bool:
    """Whether a face is upright without a closer look."""
    return face is not None and face.score >= SURE and not lies(face.points)


def _area(face: Detection) -> float:
    return face.area


def _session_options(threads: int) -> Any:
    onnxruntime = import_onnxruntime()

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return without_spinning(options, threads)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
