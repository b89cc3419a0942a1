import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from piu_lora.evidence import Evaluation, Plan, before_after, face_grid, loss_curves, png_bytes
from piu_lora.evidence.picture import to_image
from piu_lora.evidence.plan import Shot

RED, GREEN, BLUE = (torch.zeros(3, 6, 6).index_fill(0, torch.tensor(channel), 1.0) for channel in range(3))
SIZE = 20


def boxes(sheet: Image.Image, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Left upper corners of the solid squares of one colour, by rows."""
    same = (np.asarray(sheet) == colour).all(axis=2)
    inner = same.copy()
    inner[1:] &= ~same[:-1]
    inner[:, 1:] &= ~same[:, :-1]
    corners = [(int(x), int(y)) for y, x in zip(*inner.nonzero(), strict=True)]
    assert all(same[y : y + SIZE, x : x + SIZE].all() for x, y in corners)
    assert same.sum() == len(corners) * SIZE**2
    return corners


def test_pixels_are_rounded_and_clamped() -> None:
    face = torch.tensor([-0.5, 0.5, 1.5])[:, None, None].expand(3, 4, 4)
    pixels = np.asarray(to_image(face, 4))
    assert (pixels == (0, 128, 255)).all()
    assert to_image(face, 9).size == (9, 9)


def test_rows_and_columns_keep_their_places() -> None:
    ramp = torch.arange(12).reshape(1, 3, 4)[..., :3].expand(3, 3, 3) / 255
    assert np.asarray(to_image(ramp, 3))[..., 0].tolist() == [[0, 1, 2], [4, 5, 6], [8, 9, 10]]


def test_every_face_stands_in_its_cell() -> None:
    sheet = face_grid([("", [RED, GREEN]), ("", [BLUE, RED])], size=SIZE)
    left, step = 16, SIZE + 2
    assert sheet.size == (left + 2 * step + 8, 8 + 2 * step + 8)
    assert boxes(sheet, (255, 0, 0)) == [(left, 8), (left + step, 8 + step)]
    assert boxes(sheet, (0, 255, 0)) == [(left + step, 8)]
    assert boxes(sheet, (0, 0, 255)) == [(left, 8 + step)]


def test_a_short_row_leaves_paper() -> None:
    sheet = face_grid([("", [RED, RED]), ("", [RED])], size=SIZE)
    assert len(boxes(sheet, (255, 0, 0))) == 3
    assert sheet.getpixel((16 + SIZE + 2 + SIZE // 2, 8 + SIZE + 2 + SIZE // 2)) == (255, 255, 255)


def test_the_gap_moves_only_what_comes_after_it() -> None:
    plain, gapped = (face_grid([("", [RED] * 4)], size=SIZE, gap_after=gap) for gap in (0, 2))
    shifts = [
        after[0] - before[0]
        for before, after in zip(boxes(plain, (255, 0, 0)), boxes(gapped, (255, 0, 0)), strict=True)
    ]
    assert shifts == [0, 0, 24, 24]
    assert gapped.width - plain.width == 24


def test_labels_and_titles_make_room_and_leave_ink() -> None:
    bare = face_grid([("", [RED, RED])], size=SIZE)
    sheet = face_grid([("a long label", [RED, RED])], ("before", "after"), size=SIZE)
    assert sheet.width > bare.width + 30
    assert sheet.height > bare.height - 8
    left, top = boxes(sheet, (255, 0, 0))[0]
    pixels = np.asarray(sheet)
    assert (pixels[top:, :left] < 128).any()
    assert (pixels[:top, left:] < 128).any()


def test_png_is_lossless() -> None:
    sheet = face_grid([("x", [RED, GREEN])], size=SIZE)
    with Image.open(io.BytesIO(png_bytes(sheet))) as read:
        assert read.format == "PNG"
        assert np.array_equal(np.asarray(read), np.asarray(sheet))


def evaluation() -> Evaluation:
    """Forget (4 pictures of one person), two retained people, one neighbour, an anchor; red before, green
    after.
    """
    people = [("forget", 0)] * 4 + [
        ("random", 1),
        ("random", 2),
        ("random", 1),
        ("nearest", 3),
        ("nearest", 3),
        ("anchor", 4),
    ]
    plan = Plan(tuple(Shot(group, row, torch.zeros(2), place) for place, (group, row) in enumerate(people)))
    return Evaluation(plan, RED.expand(len(people), 3, 6, 6), GREEN.expand(len(people), 3, 6, 6))


def test_before_is_left_and_after_is_right() -> None:
    pixels = np.asarray(before_after(evaluation(), columns=2))
    red, green = ((pixels == colour).all(axis=2) for colour in ((255, 0, 0), (0, 255, 0)))
    # By rows: forgotten 2 (of 4), anchor 1, retained 2 (one each), neighbour 2.
    assert red.sum() == green.sum() == 7 * 128**2
    assert red.nonzero()[1].max() < green.nonzero()[1].min()
    assert np.array_equal(red.any(axis=1), green.any(axis=1))


def test_loss_curves_are_drawn(tmp_path: Path) -> None:
    history = [{"loss": 1.0 / step, "forget": 0.5 / step} for step in range(1, 6)]
    loss_curves(history, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (840, 408)
        assert len(set(picture.convert("RGB").getdata())) > 10
