"""Pictures for people: labelled grids of faces, and the curves of a training run."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from piu_lora.evidence.evaluation import Evaluation
from piu_lora.evidence.plan import Plan
from piu_lora.groups import ANCHOR, FORGET, GROUP_WORDS, NEAREST, RANDOM

__all__ = ["before_after", "face_grid", "loss_curves", "png_bytes", "shown_places", "to_image"]

_INK, _PAPER, _MARGIN = (40, 40, 46), (255, 255, 255), 8
_ROWS = (
    (FORGET, 1),
    (ANCHOR, 1),
    (RANDOM, 1),
    (NEAREST, 2),
)  # of the sheet: a group, and how many rows it has


def to_image(face: torch.Tensor, size: int) -> Image.Image:
    """(3, h, w) RGB in [0, 1] to a square picture."""
    pixels = (face.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)


def face_grid(
    rows: Sequence[tuple[str, Sequence[torch.Tensor]]],
    titles: Sequence[str] = (),
    size: int = 128,
    gap_after: int = 0,
) -> Image.Image:
    """A sheet of faces.

    Args:
        rows: a label and its faces, each (3, h, w) in [0, 1].
        titles: one heading for each equal share of the columns.
        size: edge of a face in pixels.
        gap_after: a wider gap after this many columns.
    """
    font, small = (
        ImageFont.load_default(size=max(size // 7, 10)),
        ImageFont.load_default(size=max(size // 8, 9)),
    )
    columns = max(len(faces) for _, faces in rows)
    left = max((int(small.getlength(label)) for label, _ in rows), default=0) + 2 * _MARGIN
    top = size // 4 if titles else _MARGIN
    gap = 3 * _MARGIN if gap_after else 0
    width, height = left + columns * (size + 2) + gap + _MARGIN, top + len(rows) * (size + 2) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)

    def place(column: int) -> int:
        return left + column * (size + 2) + (gap if gap_after and column >= gap_after else 0)

    for index, title in enumerate(titles):
        draw.text((place(index * columns // len(titles)), top // 2), title, fill=_INK, font=font, anchor="lm")
    for line, (label, faces) in enumerate(rows):
        y = top + line * (size + 2)
        draw.text((_MARGIN, y + size // 2), label, fill=_INK, font=small, anchor="lm")
        for column, face in enumerate(faces):
            sheet.paste(to_image(face, size), (place(column), y))
    return sheet


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def before_after(evaluation: Evaluation, columns: int = 3, *, forgotten: bool = True) -> Image.Image:
    """Rows: forgotten, anchor, three retained people, six near neighbours. Left before, right after, same
    seeds.

    Args:
        forgotten: show the forgotten people at all.
    """
    rows = [
        (label, _padded(evaluation.before, images, columns) + _padded(evaluation.after, images, columns))
        for label, images in _lines(evaluation.plan, columns, forgotten)
    ]
    return face_grid(rows, ("before", "after"), gap_after=columns)


def shown_places(plan: Plan, columns: int = 3, *, forgotten: bool = True) -> list[int]:
    """The places of a plan that ``before_after`` shows."""
    return [index for _, line in _lines(plan, columns, forgotten) for index in line]


def _lines(plan: Plan, columns: int, forgotten: bool) -> list[tuple[str, list[int]]]:
    """A label and up to ``columns`` places for each line of the sheet."""
    lines = []
    for group, count in _ROWS[0 if forgotten else 1 :]:
        indices, label = _everybody_first(plan, group)[: count * columns], GROUP_WORDS[group].row
        lines += [(label, indices[start : start + columns]) for start in range(0, len(indices), columns)]
    return lines


def _everybody_first(plan: Plan, group: str) -> list[int]:
    """The places of a group: the first picture of each person, then the second of each, and so on."""
    count: dict[int, int] = {}
    turns = []
    for index in plan.rows_of(group):
        person = plan.shots[index].row
        count[person] = count.get(person, -1) + 1
        turns.append((count[person], index))
    return [index for _, index in sorted(turns)]


def _padded(
    pictures: torch.Tensor | Mapping[int, torch.Tensor], places: list[int], columns: int
) -> list[torch.Tensor]:
    shown = [pictures[index] for index in places]
    return shown + [torch.ones_like(shown[0])] * (columns - len(places))


def loss_curves(history: Sequence[dict[str, float]], path: Path) -> None:
    """Draw every term of the loss over the steps, logarithmic; a figure that only some steps have is left
    out.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    for name in (name for name in history[0] if all(name in terms for terms in history)):
        axes.plot(range(1, len(history) + 1), [terms[name] for terms in history], label=name, linewidth=1.2)
    axes.set(xlabel="step", ylabel="loss", yscale="log", title="Training")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
