"""Photographs that are dropped: which are taken, and where they lie."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from piu_lora.studio.visitors import Visitor

if TYPE_CHECKING:
    from fastapi import UploadFile

__all__ = ["LARGEST", "MOST", "keep", "thumbnail"]

LARGEST, MOST = 10_000_000, 20  # bytes of a photograph; photographs
_KINDS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_PIXELS = 50_000_000


def keep(visitor: Visitor, sent: Sequence["UploadFile"]) -> dict[str, object]:
    """Put the usable photographs in the visitor's folder; say of the others why not."""
    refused = []
    folder = visitor.folder / "photographs"
    folder.mkdir(mode=0o700, exist_ok=True)
    for upload in sent:
        name = re.sub(r"[^\w. -]", "", upload.filename or "a file")[:60]
        if len(visitor.photographs) >= MOST:
            refused.append(f"{name}: there are {MOST} photographs already")
            continue
        content = upload.file.read(LARGEST + 1)
        kind = _kind(content)
        if len(content) > LARGEST:
            refused.append(f"{name}: larger than {LARGEST // 1_000_000} MB")
        elif kind is None:
            refused.append(f"{name}: no JPEG, PNG or WebP picture that can be read")
        else:
            # Not the file's own name, which may be somebody's.
            path = folder / f"{len(visitor.photographs) + 1:02d}{kind}"
            path.touch(mode=0o600)
            path.write_bytes(content)
            visitor.photographs.append(path)
    taken = len(sent) - len(refused)
    words = f"{taken} taken" if not refused else f"{taken} taken, {len(refused)} refused"
    return {"words": words, "refused": refused, "kept": len(visitor.photographs)}


def _kind(content: bytes) -> str | None:
    """The suffix of a picture that can be read whole; None for anything else."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=list(_KINDS)) as picture:
            if picture.width * picture.height > _PIXELS:
                return None
            picture.load()
            return _KINDS[str(picture.format)]
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def thumbnail(path: Path, size: int = 144) -> bytes:
    """A photograph as a small WebP, upright, without what its file says of camera and place."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=80)
    return buffer.getvalue()
