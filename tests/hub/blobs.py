"""The content of one file in a repository: bytes, or a file on disk that is never read whole."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 20
REGULAR_LIMIT = 10_000_000
# From the .gitattributes that the Hub puts into a new repository.
LFS_SUFFIXES = (
    ".bin",
    ".ckpt",
    ".gz",
    ".h5",
    ".msgpack",
    ".npy",
    ".npz",
    ".onnx",
    ".pickle",
    ".pkl",
    ".pt",
    ".pth",
    ".safetensors",
    ".zip",
)
SKIPPED = (".git/", ".cache/huggingface/")

# Outlives every Blob: a base of several GB is hashed once a session, however many tests serve it.
_sha256_of_file: dict[tuple[str, int, int], str] = {}
_hash_lock = threading.Lock()


def is_lfs(path: str, size: int, sample: bytes) -> bool:
    """The Hub's choice between git and large file storage; the client sends empty files through git."""
    if size == 0:
        return False
    return size > REGULAR_LIMIT or path.endswith(LFS_SUFFIXES) or b"\0" in sample


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Blob:
    """Content with its size, hashes and kind of storage; hashes are computed when first asked for."""

    def __init__(self, path: str, content: bytes | Path) -> None:
        self._content = content
        self.size = len(content) if isinstance(content, bytes) else content.stat().st_size
        with self.open() as file:
            self.lfs = is_lfs(path, self.size, file.read(512))
        self._git_oid: str | None = None

    def open(self) -> BinaryIO:
        return io.BytesIO(self._content) if isinstance(self._content, bytes) else self._content.open("rb")

    def read(self) -> bytes:
        with self.open() as file:
            return file.read()

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        left = (self.size if stop is None else stop) - start
        with self.open() as file:
            file.seek(start)
            while left > 0 and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk

    @property
    def sha256(self) -> str:
        if isinstance(self._content, bytes):
            return hashlib.sha256(self._content).hexdigest()
        stat = self._content.stat()
        key = (str(self._content), stat.st_size, stat.st_mtime_ns)
        with _hash_lock:
            if key not in _sha256_of_file:
                with self.open() as file:
                    _sha256_of_file[key] = hashlib.file_digest(file, "sha256").hexdigest()
            return _sha256_of_file[key]

    @property
    def git_oid(self) -> str:
        """The git id: of the content, or of the pointer file that stands for it in git."""
        if self._git_oid is None:
            self._git_oid = git_oid(self.pointer if self.lfs else self.read())
        return self._git_oid

    @property
    def pointer(self) -> bytes:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n"
        return pointer.encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_oid


def read_folder(folder: Path) -> dict[str, Blob]:
    """Every file below a folder, without reading more than its first bytes."""
    names = {
        file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()
    }
    return {name: Blob(name, file.resolve()) for name, file in names.items() if not name.startswith(SKIPPED)}


def blobs_of(files: Path | Mapping[str, bytes]) -> dict[str, Blob]:
    if isinstance(files, Path):
        return read_folder(files)
    return {path: Blob(path, data) for path, data in files.items()}
