"""dlib's face recognizer: a judge that has nothing in common with ArcFace, and comes from a package registry.

Its detector, five points and ResNet-29 (128-d, trained on about 3 million faces; model files in the public
domain) are in the packages of the extra ``dlib``: King, "Dlib-ml: A Machine Learning Toolkit", JMLR 2009;
http://blog.dlib.net/2017/02/high-quality-face-recognition-with-deep.html.
"""

import hashlib
import importlib.util
import threading
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from piu_lora.errors import EnvironmentProblem
from piu_lora.identity.bank import RecognizerId
from piu_lora.identity.embedding import normalize
from piu_lora.identity.faces import (
    Face,
    Picture,
    Several,
    as_pixels,
    check_several,
    faces_that_count,
    say_turned,
)
from piu_lora.identity.pictures import read_picture
from piu_lora.identity.second_look import TURNS

__all__ = ["DLIB", "DlibReader"]

DLIB = "dlib"  # in place of a face pack's folder
_RECOGNIZER = "dlib_face_recognition_resnet_model_v1.dat"
_POINTS = "shape_predictor_5_face_landmarks.dat"
_WIDTH = 128
_LONGEST = 1024  # pixels of the longer side that the detector looks at
_ENLARGED = (0, 1, 2)  # times that a picture is doubled until a face of 80 pixels or more is found


class _Models(NamedTuple):
    detector: Any
    points: Any
    recognizer: Any


class DlibReader:
    """Photographs and generated pictures in, unit-norm embeddings of dlib's recognizer out: (128,) each.

    Two strangers have a cosine near 0.85 by it, so that only thresholds calibrated on a bank mean anything.
    Safe to call from several threads.

    Args:
        several: what to do with a photograph of several faces: take the largest, refuse it, or take all.

    Raises:
        EnvironmentProblem: the extra ``dlib`` is not installed.
        BadInput: ``several`` is unknown.
    """

    name = DLIB

    def __init__(self, *, several: Several = "largest") -> None:
        check_several(several)
        self.several = several
        self._folder = _model_folder()
        self._local = threading.local()

    @cached_property
    def id(self) -> RecognizerId:
        """``dlib`` and the SHA-256 of the recognizer's file."""
        digest = hashlib.sha256((self._folder / _RECOGNIZER).read_bytes()).hexdigest()
        return RecognizerId(DLIB, digest)

    @property
    def settings(self) -> dict[str, Any]:
        """What shapes the embeddings, for a bank to record."""
        return {"detector": "HOG", "enlarged": list(_ENLARGED), "several": self.several}

    def read(self, path: Path) -> list[Face]:
        """The faces of a photograph that count, by the policy for several; turned where that finds one.

        Raises:
            UnusablePhoto: the file is not a picture, holds no face, or several where one is asked for.
        """
        picture = read_picture(path, longest=_LONGEST)
        for turn in TURNS:
            if faces := self.faces(np.rot90(picture, turn // 90), turned=turn):
                break
        if faces and turn:
            say_turned(path, turn)
        return faces_that_count(path, faces, self.several)

    def faces(self, picture: Picture, *, turned: int = 0) -> list[Face]:
        """All faces of an upright picture (h, w, 3) uint8 RGB, the largest first."""
        upright = np.ascontiguousarray(picture)
        for enlarged in _ENLARGED:
            boxes, scores, _ = self._models.detector.run(upright, enlarged, 0.0)
            if boxes:
                break
        faces = [self._face(upright, *pair, turned) for pair in zip(boxes, scores, strict=True)]
        return sorted(faces, key=lambda face: -face.area)

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        """Embed generated pictures.

        Args:
            faces: (n, 3, h, w) RGB in [0, 1].

        Returns:
            (n, 128) float32: the unit embedding of the largest face, or zeros where there is none.
        """
        largest = [self.faces(picture)[:1] for picture in as_pixels(faces)]
        return torch.stack([face[0].embedding if face else torch.zeros(_WIDTH) for face in largest])

    def _face(self, picture: Picture, box: Any, score: float, turned: int) -> Face:
        models = self._models
        descriptor = models.recognizer.compute_face_descriptor(picture, models.points(picture, box))
        edges = tuple(float(edge) for edge in (box.left(), box.top(), box.right(), box.bottom()))
        embedding = normalize(torch.from_numpy(np.asarray(descriptor, dtype=np.float32))[None])[0]
        return Face(embedding, (edges[0], edges[1], edges[2], edges[3]), float(score), turned)

    @property
    def _models(self) -> _Models:
        """The models of this thread: dlib's are not made to be shared."""
        if not hasattr(self._local, "models"):
            import dlib

            self._local.models = _Models(
                dlib.get_frontal_face_detector(),
                dlib.shape_predictor(str(self._folder / _POINTS)),
                dlib.face_recognition_model_v1(str(self._folder / _RECOGNIZER)),
            )
        models: _Models = self._local.models
        return models


def _model_folder() -> Path:
    """Where the package of model files keeps them; its own import would need setuptools."""
    library, models = (importlib.util.find_spec(name) for name in ("dlib", "face_recognition_models"))
    if library is None or models is None or models.origin is None:
        raise EnvironmentProblem("dlib's recognizer is not installed: pip install 'piu-lora[dlib]'")
    return Path(models.origin).parent / "models"
