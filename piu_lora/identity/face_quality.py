"""No-reference face quality by an ONNX model (eDifFIQA, CR-FIQA and their like)."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.telemetry import import_onnxruntime
from piu_lora.threads import without_spinning

__all__ = ["FaceQuality"]


class FaceQuality:
    """A model with one input (n, 3, s, s) RGB in [-1, 1] and one score for each picture; higher is better.

    Arc2Face and the embedded base draw aligned faces, so that pictures are resized and not aligned again.

    Args:
        path: the ONNX file.
        providers: onnxruntime execution providers, first choice first.

    Raises:
        EnvironmentProblem: there is no such file.
        BadInput: it is no model of that form.
    """

    def __init__(self, path: Path | str, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        self.path, self.providers = Path(path), list(providers)
        if not self.path.is_file():
            raise EnvironmentProblem(
                f"there is no face-quality model at {str(path)!r}; pass quality=FILE.onnx, or leave it out"
            )
        shape = self._session.get_inputs()[0].shape
        if len(shape) != 4 or shape[1] != 3 or not isinstance(shape[2], int) or shape[2] != shape[3]:
            raise BadInput(
                f"the face-quality model {str(path)!r} takes {shape}; expected (n, 3, s, s), RGB in [-1, 1]"
            )
        self.size = shape[2]

    @cached_property
    def _session(self) -> Any:
        onnxruntime = import_onnxruntime()

        options = without_spinning(onnxruntime.SessionOptions())
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(str(self.path), options, providers=self.providers)
        except Exception as error:  # onnxruntime's own classes are private
            raise BadInput(
                f"{str(self.path)!r} cannot be read as an ONNX model: {str(error).splitlines()[0]}"
            ) from error

    def __call__(self, pictures: torch.Tensor) -> npt.NDArray[np.float64]:
        """Scores (n,) of (n, 3, h, w) RGB pictures in [0, 1].

        Raises:
            BadInput: the model gives something else than one score for each picture.
        """
        scaled = pictures.float() * 2 - 1
        if scaled.shape[-2:] != (self.size, self.size):
            scaled = torch.nn.functional.interpolate(
                scaled, (self.size, self.size), mode="bilinear", antialias=True
            )
        name = self._session.get_inputs()[0].name
        # One at a time: models exported with a fixed batch take no more.
        scores = [
            np.asarray(self._session.run(None, {name: picture[None].numpy()})[0], float).ravel()
            for picture in scaled
        ]
        if any(score.size != 1 for score in scores):
            raise BadInput(
                f"the face-quality model {str(self.path)!r} gives {scores[0].size} values for a picture; "
                "expected one score"
            )
        return np.concatenate(scores)
