"""Which files of a folder are photographs, and why the others are none."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

__all__ = [
    "PHOTO_SUFFIXES",
    "PhotoFiles",
    "Rejected",
    "is_heif",
    "list_photos",
    "listed",
    "odd_name",
    "photo_files",
    "photo_tree",
    "printable",
    "readable_formats",
]

# The usual ones, for messages. Read is whatever Pillow reads.
PHOTO_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# Pillow only knows these by name, or runs another program on them.
_NOT_READ = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_HEIF = frozenset({".heic", ".heif", ".hif", ".heics", ".heifs"})
_KINDS = {
    "a camera's raw file; export it as JPEG or PNG": (
        ".3fr .arw .cr2 .cr3 .crw .dng .erf .iiq .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .srw .x3f"
    ),
    "a video": ".3gp .avi .m4v .mkv .mov .mp4 .mpeg .mpg .mts .webm .wmv",
    "a sidecar, not a picture": ".aae .db .ini .json .lrdata .pp3 .thm .txt .xml .xmp .csv .md .html .log",
    "a document or drawing; export its picture": ".ai .doc .docx .eps .odt .pdf .ps .svg .emf .wmf",
    "an archive; unpack it": ".7z .gz .rar .tar .tgz .zip",
}
_REASONS = {suffix: reason for reason, suffixes in _KINDS.items() for suffix in suffixes.split()}


@dataclass(frozen=True)
class Rejected:
    """A photograph that was left out, or a file that is none, and why."""

    photo: Path
    reason: str


@dataclass
class PhotoFiles:
    """What lies in a folder: photographs by name, whatever else with its reason, and folders."""

    photos: list[Path] = field(default_factory=list)
    passed_over: list[Rejected] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)


def list_photos(folder: Path) -> list[Path]:
    """The photographs in a folder, by name; hidden files are skipped."""
    return photo_files(folder).photos


def photo_files(folder: Path) -> PhotoFiles:
    """Look through one folder, not into the folders inside it; a file that is linked twice counts once."""
    result, real = PhotoFiles(), set[str]()
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    for entry in sorted(entries, key=lambda entry: entry.is_symlink()):
        reason = _reason(entry)
        if reason:
            result.passed_over.append(Rejected(entry, reason))
        elif entry.is_dir():
            result.folders.append(entry)
        elif (target := os.path.realpath(entry)) in real:
            result.passed_over.append(Rejected(entry, f"a link to {Path(target).name!r}, which is here too"))
        else:
            real.add(target)
            result.photos.append(entry)
    for paths in (result.photos, result.folders):
        paths.sort(key=lambda entry: entry.name)
    return result


def photo_tree(root: Path) -> tuple[PhotoFiles, dict[Path, PhotoFiles]]:
    """A folder, and each folder inside it with everything below; every real folder is read once.

    Returns:
        What lies in ``root`` itself, and for each of its folders what lies anywhere below.
    """
    top = photo_files(root)
    below = {folder: PhotoFiles() for folder in top.folders}
    visited = {os.path.realpath(root)}
    links: list[tuple[Path, Path]] = []
    for group in top.folders:
        _walk(group, group, below[group], visited, links)
    # Links last: what they lead to may lie in a folder of its own.
    while links:
        group, link = links.pop(0)
        if os.path.realpath(link) in visited:
            below[group].passed_over.append(Rejected(link, "a link to a folder that is read already"))
        else:
            _walk(Path(os.path.realpath(link)), group, below[group], visited, links)
    return top, below


def _walk(
    start: Path, group: Path, into: PhotoFiles, visited: set[str], links: list[tuple[Path, Path]]
) -> None:
    waiting = [start]
    while waiting:
        folder = waiting.pop(0)
        if folder.is_symlink():
            links.append((group, folder))
            continue
        visited.add(os.path.realpath(folder))
        content = photo_files(folder)
        into.photos += content.photos
        into.passed_over += content.passed_over
        waiting[:0] = content.folders


def _reason(entry: Path) -> str:
    """Why a directory entry is no photograph; empty for a photograph and for a folder."""
    name, suffix = entry.name, entry.suffix.lower()
    if name.startswith("."):
        return "left by a Mac beside the file itself" if name.startswith("._") else "hidden"
    try:
        if entry.is_dir():
            return "left by a Mac" if name == "__MACOSX" else ""
        if not entry.is_file():
            return "a link to nothing" if entry.is_symlink() else "not a regular file"
    except OSError as error:
        return str(error.strerror or error)
    if suffix in _suffixes():
        return ""
    if suffix in _HEIF:
        return "HEIC, which needs pillow-heif: pip install 'piu-lora[heic]'"
    return _REASONS.get(suffix) or ("" if _is_picture(entry) else "not a picture that Pillow reads")


@cache
def readable_formats() -> tuple[str, ...]:
    """The formats that Pillow reads by itself, and HEIF where pillow-heif is installed."""
    Image.preinit()
    Image.init()
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    return tuple(name for name in Image.ID if name not in _NOT_READ)  # the common ones first


@cache
def _suffixes() -> frozenset[str]:
    readable = readable_formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


def _is_picture(path: Path) -> bool:
    """Whether a file of an unknown name is a picture all the same."""
    try:
        with Image.open(path, formats=readable_formats()):
            return True
    except Exception:  # whatever a stranger's bytes bring about
        return False


def is_heif(path: Path) -> bool:
    """Whether a file is HEIC by its first bytes, whatever its name."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head[4:8] == b"ftyp" and head[8:12] in (
        b"heic",
        b"heix",
        b"heim",
        b"heis",
        b"hevc",
        b"mif1",
        b"msf1",
    )


def odd_name(name: str) -> str:
    """Why a name cannot be an identity's id; empty if it can."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is no UTF-8"
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name):
        return "holds a line break or another control character"
    return ""


def printable(path: Path | str) -> str:
    """A name for one line of a screen or a log: what cannot be shown is escaped."""
    return "".join(_shown(str(path)))


def _shown(text: str) -> Iterator[str]:
    for letter in text:
        yield letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode()


def listed(rejected: Sequence[Rejected], most: int = 20) -> str:
    """Files and reasons in one line; of very many, the first."""
    lines = [f"{str(entry.photo)!r}: {entry.reason}" for entry in rejected[:most]]
    return "; ".join([*lines, *([f"and {len(rejected) - most} more"] if len(rejected) > most else [])])
