"""Building a bank from photographs: a folder for each identity, or one flat folder that is clustered."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from piu_lora.adapter import claimed, disk_errors, refuse_existing
from piu_lora.errors import BadInput
from piu_lora.foreign import opened
from piu_lora.identity import IdentityBank, PhotoReader, Rejected
from piu_lora.identity.cluster import (
    Calibration,
    Double,
    calibrate,
    cluster,
    doubles,
    merge_doubles,
    similarities,
)
from piu_lora.identity.constants import double_cosine, value_of
from piu_lora.identity.gather import settle
from piu_lora.identity.pictures import UnusablePhoto
from piu_lora.identity.profiles import GENERIC, geometry_of
from piu_lora.jobs.banks.geometry import keep_geometry
from piu_lora.jobs.banks.photo_cache import PhotoCache, Reading
from piu_lora.jobs.banks.photo_folders import folders_of
from piu_lora.jobs.request.constants import double_of
from piu_lora.progress import Progress, silent
from piu_lora.writing import make_folder

__all__ = ["BankBuild", "ClusterSettings", "build_bank", "calibrate_photos", "merge_doubles"]

_log = logging.getLogger("piu_lora")
_ENOUGH_FACES, _MOSTLY_STRANGERS = 50, 0.2  # faces, and their median cosine
_BATCH = 32  # photographs between two commits of the cache
Found = list[tuple[Path, torch.Tensor]]


@dataclass(frozen=True)
class ClusterSettings:
    """Who counts as one person.

    Attributes:
        eps, min_samples: DBSCAN over cosine distance, for a flat folder; without eps, the number of
            photographs and their spread decide.
        linked: cosine at which two photographs in one identity's folder show the same person; by default by
            the geometry of all folders.
        double: centroids of two identities this close are reported as doubles; by default by the geometry of
            the finished bank.
        merge: make one identity of each chain of doubles.
    """

    eps: float | None = None
    min_samples: int = 2
    linked: float | None = None
    double: float | None = None
    merge: bool = False


@dataclass
class BankBuild:
    """A finished build: the bank, and an account of every photograph that is not in it."""

    bank: IdentityBank
    photos: int
    faces: int
    layout: Literal["folders", "flat"]
    rejected: list[Rejected] = field(default_factory=list)
    doubles: list[Double] = field(default_factory=list)
    merged: bool = False
    turned: list[Path] = field(default_factory=list)
    double: float = 0.0


def build_bank(
    photos: str | Path,
    out: str | Path,
    reader: PhotoReader,
    reader_settings: dict[str, Any],
    settings: ClusterSettings = ClusterSettings(),
    *,
    workers: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> BankBuild:
    """Read every photograph, decide who is who, and write the bank.

    The same photographs, pack and settings give the same bank, whatever the number of workers. An interrupted
    build goes on where it stopped: what was read waits in a hidden file beside ``out``, which is removed in
    the end.

    Args:
        photos: a folder with a folder for each identity, or with photographs only.
        out: the bank file to write.
        reader: turns a photograph into embeddings; its policy says what happens to several faces.
        reader_settings: what the bank records about the reader.
        workers: threads; 0 takes one for each core.

    Raises:
        BadInput: no photographs, a mixed folder, or none of them usable.
    """
    target = Path(out)
    refuse_existing(target, force=force)
    folders, passed_over = folders_of(Path(photos))
    cache = target.with_name(f".{target.name}.photos")
    with disk_errors(f"the bank {str(target)!r}"):
        make_folder(target.parent)
    with claimed(target), disk_errors(f"the bank {str(target)!r}"):
        with PhotoCache.open(cache, [reader.id.sha256, reader_settings]) as known:
            readings = _read_all(
                [photo for group in folders.values() for photo in group], reader, known, workers, progress
            )
        flat = "" in folders
        build = (
            _by_cluster(folders[""], readings, reader, settings)
            if flat
            else _by_folder(folders, readings, reader, settings)
        )
        build.bank.settings = {**build.bank.settings, **reader_settings}
        build.rejected += passed_over
        build.turned = [photo for photo, reading in readings.items() if reading.turned]
        if build.turned:
            build.bank.settings["turned_photographs"] = len(build.turned)
        build.double = double_of(build.bank).value if settings.double is None else settings.double
        build.doubles = doubles(build.bank, build.double)
        if settings.merge and build.doubles:
            build.bank, build.merged = merge_doubles(build.bank, build.doubles), True
        keep_geometry(build.bank)
        build.bank.save(target)
        cache.unlink(missing_ok=True)
    return build


def calibrate_photos(
    photos: str | Path,
    reader: PhotoReader,
    reader_settings: dict[str, Any],
    *,
    workers: int = 0,
    cache: Path,
    progress: Progress = silent,
) -> Calibration:
    """Propose DBSCAN's eps from the photographs themselves; with a folder for each identity, from known
    identities.

    Args:
        cache: what was read so far waits in this file if the work is interrupted; it is removed in the end.
    """
    folders, _ = folders_of(Path(photos))
    with disk_errors(f"beside {str(cache.parent)!r}"):
        make_folder(cache.parent)
        with PhotoCache.open(cache, [reader.id.sha256, reader_settings]) as known:
            readings = _read_all(
                [photo for group in folders.values() for photo in group], reader, known, workers, progress
            )
    faces, labels = [], []
    for label, group in enumerate(folders.values()):
        for _, embedding in _faces(group, readings)[0]:
            faces.append(embedding)
            labels.append(label)
    if not faces:
        raise BadInput(f"none of the photographs in {str(photos)!r} is usable")
    proposal = calibrate(torch.stack(faces), None if "" in folders else torch.tensor(labels))
    cache.unlink(missing_ok=True)
    return proposal


def _read_all(
    photos: Sequence[Path], reader: PhotoReader, known: PhotoCache, workers: int, progress: Progress
) -> dict[Path, Reading]:
    result: dict[Path, Reading] = {}
    with (
        progress("photos", len(photos)) as advance,
        ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool,
    ):
        for start in range(0, len(photos), _BATCH):
            result |= _read_batch(photos[start : start + _BATCH], reader, known, pool, advance)
    return result


def _read_batch(
    batch: Sequence[Path],
    reader: PhotoReader,
    cache: PhotoCache,
    pool: ThreadPoolExecutor,
    advance: Callable[..., None],
) -> dict[Path, Reading]:
    digests = dict(zip(batch, pool.map(_digest, batch), strict=True))
    cached = {photo: reading for photo in batch if (reading := cache.find(digests[photo])) is not None}
    advance(len(cached))
    waiting = {photo: pool.submit(_read, reader, photo) for photo in batch if photo not in cached}
    read: dict[Path, Reading] = {}
    try:
        for photo, future in waiting.items():
            read[photo] = future.result()
            advance(1)
    finally:
        # Interrupted: what was read is kept, what was not begun is left.
        for future in waiting.values():
            future.cancel()
        cache.keep([(digests[photo], reading) for photo, reading in read.items() if digests[photo]])
    return cached | read


def _digest(photo: Path) -> str:
    try:
        with opened(photo) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, BadInput):
        return ""  # the reader says why


def _read(reader: PhotoReader, photo: Path) -> Reading:
    try:
        faces = reader.read(photo)
        turned = max(getattr(face, "turned", 0) for face in faces)
        return Reading(torch.stack([face.embedding for face in faces]), turned=turned)
    except UnusablePhoto as error:
        return Reading(reason=error.reason)


def _faces(photos: Sequence[Path], readings: dict[Path, Reading]) -> tuple[Found, list[Rejected]]:
    faces = [
        (photo, row) for photo in photos if (rows := readings[photo].embeddings) is not None for row in rows
    ]
    return faces, [Rejected(photo, readings[photo].reason) for photo in photos if readings[photo].reason]


def _by_folder(
    folders: dict[str, list[Path]],
    readings: dict[Path, Reading],
    reader: PhotoReader,
    settings: ClusterSettings,
) -> BankBuild:
    people: dict[str, torch.Tensor] = {}
    rejected: list[Rejected] = []
    total = 0
    groups = {name: _faces(photos, readings) for name, photos in folders.items()}
    linked = _linked([faces for faces, _ in groups.values()]) if settings.linked is None else settings.linked
    for name, (faces, unusable) in groups.items():
        total += len(faces)
        settled = settle(faces, linked, unusable) if faces else None
        if settled is not None:
            people[name] = settled.embeddings
            rejected += settled.rejected
        else:
            rejected += unusable
            reason = f"nobody can say who this folder is: two groups are equally large at cosine {linked:g}"
            rejected += [Rejected(photo, reason) for photo in dict.fromkeys(photo for photo, _ in faces)]
    used = {"layout": "folders", "linked": linked}
    return BankBuild(
        _bank(people, reader, used, rejected), sum(map(len, folders.values())), total, "folders", rejected
    )


def _by_cluster(
    photos: list[Path], readings: dict[Path, Reading], reader: PhotoReader, settings: ClusterSettings
) -> BankBuild:
    faces, rejected = _faces(photos, readings)
    if not faces:
        raise BadInput(
            f"none of {len(photos)} photographs is usable; the first: "
            f"{rejected[0].photo.name}: {rejected[0].reason}"
        )
    rows = torch.stack([embedding for _, embedding in faces])
    eps = _eps(rows) if settings.eps is None else settings.eps
    labels = cluster(rows, eps, settings.min_samples)
    digits = len(str(labels.max() + 1))
    people = {f"cluster-{label:0{digits}d}": rows[labels == label] for label in range(labels.max() + 1)}
    reason = f"in no cluster (eps {eps:g}, min_samples {settings.min_samples})"
    clustered = Counter(photo for (photo, _), label in zip(faces, labels, strict=True) if label >= 0)
    rejected += [
        Rejected(photo, reason)
        for photo in dict.fromkeys(photo for photo, _ in faces)
        if not clustered[photo]
    ]
    used = {"layout": "flat", "eps": eps, "min_samples": settings.min_samples}
    return BankBuild(_bank(people, reader, used, rejected), len(photos), len(faces), "flat", rejected)


def _linked(groups: Sequence[Found]) -> float:
    """By the geometry of all folders; what a folder holds of other people hardly changes it."""
    faces = [(label, row) for label, group in enumerate(groups) for _, row in group]
    if not faces:
        return value_of("faces.linked", "auto")
    labels, rows = torch.tensor([label for label, _ in faces]), torch.stack([row for _, row in faces])
    return value_of("faces.linked", "auto", lambda: geometry_of(rows, labels))


def _eps(rows: torch.Tensor) -> float:
    """One pair of strangers in twenty folders of so many photographs is taken for one person, by the profile;
    its cosines are stretched to the spread of these faces where there are enough, most of them strangers.
    """
    cosine = double_cosine(GENERIC, max(len(rows), 2))
    if len(rows) >= _ENOUGH_FACES and GENERIC.impostors is not None:
        cosines = similarities(rows, torch.arange(len(rows)))[1]
        middle = cosines.median()
        spread = float((cosines - middle).abs().median()) * 1.4826  # of a normal distribution
        if middle < _MOSTLY_STRANGERS:
            cosine = float(middle) + cosine * spread / GENERIC.impostors.sd
    return round(1 - min(cosine, 0.95), 2)


def _bank(
    people: dict[str, torch.Tensor],
    reader: PhotoReader,
    settings: dict[str, Any],
    rejected: Sequence[Rejected],
) -> IdentityBank:
    if not people:
        why = f", the first ({rejected[0].photo.name}) for this: {rejected[0].reason}" if rejected else ""
        raise BadInput(
            f"no identity is left: every photograph was rejected{why}; pass other photographs or settings"
        )
    labels = torch.cat(
        [torch.full((len(rows),), label, dtype=torch.int32) for label, rows in enumerate(people.values())]
    )
    return IdentityBank(torch.cat(list(people.values())), labels, list(people), reader.id, settings)
