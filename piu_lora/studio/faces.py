"""Faces as a browser takes them."""

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["data_uri", "webp"]


def webp(face: "torch.Tensor", size: int = 192) -> bytes:
    """(3, h, w) RGB in [0, 1] as a small WebP."""
    from piu_lora.evidence.picture import to_image

    buffer = io.BytesIO()
    to_image(face, min(size, max(face.shape[-1], size))).save(buffer, format="WEBP", quality=88)
    return buffer.getvalue()


def data_uri(picture: bytes, kind: str = "image/webp") -> str:
    """A picture within a page, so that no file of it lies anywhere."""
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"
