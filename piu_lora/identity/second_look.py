"""A second look at a photograph: which way up a face is, and where a small one may be."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["SURE", "TURNS", "Detection", "best_turn", "lies", "tiles", "without_doubles"]

# Measured on 50 photographs (portraits, and faces in the news) in all four turns with SCRFD 500M: at the
# better of two sizes upright faces score 0.73 to 0.88 and those upside down 0.73 at most, and in each
# photograph the upright turn scored highest.
SURE = 0.75
_MARGIN = 0.02
_UPRIGHT = 30.0  # degrees from the eyes down to the mouth
TURNS = (0, 180, 90, 270)
_TILE, _STEP = 1280, 960  # pixels


class Detection(NamedTuple):
    """A face as the detector sees it: box (x0, y0, x1, y1), score, five points (5, 2), in pixels of the
    picture with a grey margin around it.
    """

    box: npt.NDArray[np.float32]
    score: float
    points: npt.NDArray[np.float32]
    margin: int = 0

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


def lies(points: npt.NDArray[np.float32]) -> bool:
    """Whether a face lies on its side, by its points: eyes, nose, corners of the mouth."""
    down = points[3:5].mean(axis=0) - points[0:2].mean(axis=0)
    return abs(float(np.degrees(np.arctan2(down[0], down[1])))) > _UPRIGHT


def best_turn(faces_by_turn: dict[int, Detection | None]) -> int:
    """The turn, in degrees, in which the face is upright; 0 unless another one is better without doubt.

    Args:
        faces_by_turn: the largest face in each turn; None where there is none.
    """
    scores = {turn: face.score if face else 0.0 for turn, face in faces_by_turn.items()}
    best = max(scores, key=lambda turn: scores[turn])
    upright = faces_by_turn.get(0)
    margin = 0.0 if upright is not None and lies(upright.points) else _MARGIN
    return best if scores[best] > scores.get(0, 0.0) + margin else 0


def tiles(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Overlapping squares (y0, x0, y1, x1) of a large picture; none of a small one."""
    if max(height, width) <= _TILE:
        return []
    return [
        (y, x, min(y + _TILE, height), min(x + _TILE, width)) for y in _starts(height) for x in _starts(width)
    ]


def _starts(edge: int) -> Sequence[int]:
    count = max(-(-(edge - _TILE) // _STEP), 0) + 1
    return sorted({max(min(tile * _STEP, edge - _TILE), 0) for tile in range(count)})


def without_doubles(faces: Sequence[Detection]) -> list[Detection]:
    """Of boxes that overlap by more than two fifths, the one of the highest score."""
    chosen: list[Detection] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(_overlap(face.box, other.box) < 0.4 for other in chosen):
            chosen.append(face)
    return chosen


def _overlap(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Intersection over union."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (first, second)]
    shared = float(width * height)
    return shared / (sum(areas) - shared)
