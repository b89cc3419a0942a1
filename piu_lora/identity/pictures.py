"""Photographs as they come from cameras, phones and scanners, turned into upright RGB arrays."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from piu_lora.errors import BadInput
from piu_lora.foreign import require_regular
from piu_lora.identity.photo_files import PHOTO_SUFFIXES, is_heif, list_photos, readable_formats
from piu_lora.tensors import pointer_advice

__all__ = ["PHOTO_SUFFIXES", "UnusablePhoto", "list_photos", "read_picture"]

_SMALLEST = 32  # pixels a side; no detector finds a face in less
_GREY = 127  # what shows through transparent pixels


class UnusablePhoto(BadInput):
    """A photograph that holds no usable face; ``reason`` says why, without its path."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{str(path)!r}: {reason}; pass another photograph")


def read_picture(path: Path, *, longest: int = 4096) -> npt.NDArray[np.uint8]:
    """Read a picture file of any common kind.

    Orientation tags are applied, transparency is laid on grey, 16-bit values are scaled, of an animation the
    first frame is taken, and huge pictures are reduced.

    Args:
        longest: pixels of the longer side, at most.

    Returns:
        (h, w, 3) uint8 RGB in [0, 255], upright.

    Raises:
        UnusablePhoto: not a picture, truncated, too small, or too large to be opened safely.
    """
    # PIL warns from 90 megapixels on, and of damaged tags; the first are reduced here, the second do not
    # matter. Not in a catch_warnings block: several threads read at once, and it would leave their filters
    # behind.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with Image.open(require_regular(path), formats=readable_formats()) as picture:
            # A JPEG is decoded at a fraction of its size, which is all that is needed of a huge one.
            picture.draft(None, (longest, longest))
            upright = _rgb(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise UnusablePhoto(path, "more pixels than can be opened safely") from None
    except BadInput:
        raise UnusablePhoto(path, _no_file(path)) from None
    except UnidentifiedImageError:
        raise UnusablePhoto(path, _no_picture(path)) from None
    except IsADirectoryError:
        raise UnusablePhoto(path, "a folder, not a picture") from None
    except PermissionError:
        raise UnusablePhoto(path, "no permission to read it") from None
    except (FileNotFoundError, NotADirectoryError):
        raise UnusablePhoto(path, "no such file") from None
    except Exception as error:  # whatever a decoder makes of a stranger's bytes
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnusablePhoto(
            path, "truncated" if "truncated" in cause.lower() else f"damaged ({cause})"
        ) from None
    size = upright.size
    if max(size) > longest:
        upright.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    if min(upright.size) < _SMALLEST:
        raise UnusablePhoto(path, f"too small or too narrow ({size[0]} x {size[1]} pixels)")
    return np.asarray(upright, dtype=np.uint8)


def _no_file(path: Path) -> str:
    return "a folder, not a picture" if path.is_dir() else "no regular file"


def _no_picture(path: Path) -> str:
    if path.stat().st_size == 0:
        return "empty file"
    if pointer_advice(path):
        return "a pointer of Git LFS, not the picture itself; run `git lfs pull` there"
    return "HEIC, which needs pillow-heif: pip install 'piu-lora[heic]'" if is_heif(path) else "not a picture"


def _rgb(picture: Image.Image) -> Image.Image:
    picture.load()
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep_grey(picture)
    if picture.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (_GREY, _GREY, _GREY, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return picture.convert("RGB")


def _from_deep_grey(picture: Image.Image) -> Image.Image:
    """More than 8 bits a pixel: scaled from the smallest of the usual ranges that holds the values. PIL's own
    conversion clips at 255.
    """
    values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
    ranges = (1.0, 255.0, 65535.0) if picture.mode == "F" else (255.0, 65535.0)
    full = next((top for top in ranges if values.max() <= top), values.max())
    return Image.fromarray((values.clip(0, full) * (255.0 / full)).round().astype(np.uint8)).convert("RGB")
