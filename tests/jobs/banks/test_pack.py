"""Setting up the face pack, with real models under the names that Arc2Face asks for."""

import errno
import shutil
import zipfile
from pathlib import Path

import pytest

from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.folders import default_pack
from piu_lora.identity import FaceReader
from piu_lora.jobs.banks.pack import DETECTOR, DETECTOR_SOURCE, RECOGNIZER, set_up_pack
from piu_lora.model.families.arc2face import ARC2FACE
from tests.hub import LoopbackHub
from tests.photos import PACK, needs_faces


def models() -> tuple[Path, Path]:
    """Detector and recognizer of the pack at hand, whatever they are called there."""
    detector, recognizer = sorted(PACK.glob("*.onnx"))
    return detector, recognizer


@pytest.fixture
def antelopev2(tmp_path: Path) -> Path:
    """A folder like insightface's own pack: the detector is not alone in it."""
    folder = tmp_path / "antelopev2"
    folder.mkdir()
    detector, recognizer = models()
    shutil.copy(detector, folder / DETECTOR)
    shutil.copy(recognizer, folder / "glintr100.onnx")
    (folder / "genderage.onnx").write_bytes(b"another model")
    return folder


@pytest.fixture
def arcface(tmp_path: Path) -> Path:
    file = tmp_path / "downloads" / "arcface.onnx"
    file.parent.mkdir()
    shutil.copy(models()[1], file)
    return file


def zipped(folder: Path, *, inside: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{inside}{file.name}")
    return path


def assert_complete(pack: Path) -> None:
    """Detector and recognizer, byte for byte, and nothing else."""
    detector, recognizer = models()
    assert sorted(file.name for file in pack.iterdir()) == sorted([DETECTOR, RECOGNIZER])
    assert (pack / DETECTOR).read_bytes() == detector.read_bytes()
    assert (pack / RECOGNIZER).read_bytes() == recognizer.read_bytes()


# --- from files at hand


@needs_faces
def test_from_a_folder_only_the_detector_is_taken(antelopev2: Path, arcface: Path, tmp_path: Path) -> None:
    folder, recognizer = set_up_pack(tmp_path / "deep" / "pack", antelopev2, arcface)
    assert folder == tmp_path / "deep" / "pack"
    assert_complete(folder)  # above all: no glintr100.onnx
    assert recognizer.name == RECOGNIZER
    assert recognizer == FaceReader(folder).id


@needs_faces
@pytest.mark.parametrize("inside", ["", "antelopev2/", "a/b/"])
def test_from_a_zip_however_deep(antelopev2: Path, arcface: Path, tmp_path: Path, inside: str) -> None:
    set_up_pack(tmp_path / "pack", zipped(antelopev2, inside=inside), arcface)
    assert_complete(tmp_path / "pack")


@needs_faces
def test_from_a_nested_folder(antelopev2: Path, arcface: Path, tmp_path: Path) -> None:
    outer = tmp_path / "unzipped"
    shutil.move(antelopev2, outer / "antelopev2")
    set_up_pack(tmp_path / "pack", outer, arcface)
    assert_complete(tmp_path / "pack")


@needs_faces
def test_by_default_it_goes_where_every_command_looks(
    antelopev2: Path, arcface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIU_LORA_PACK", str(tmp_path / "stated"))
    folder, _ = set_up_pack(None, antelopev2, arcface)
    assert folder == default_pack() == tmp_path / "stated"
    assert_complete(folder)


# --- from the hub


@needs_faces
def test_from_the_hub_at_the_pinned_revisions(hub: LoopbackHub, tmp_path: Path) -> None:
    detector, recognizer = (file.read_bytes() for file in models())
    hub.add_repository(ARC2FACE[0], {RECOGNIZER: recognizer, "README.md": b"Arc2Face"}, revision=ARC2FACE[1])
    hub.add_repository(
        DETECTOR_SOURCE[0], {DETECTOR: detector, "glintr100.onnx": recognizer}, revision=DETECTOR_SOURCE[1]
    )
    # What lies on the branches now is not what is taken.
    for repository, name in ((ARC2FACE[0], RECOGNIZER), (DETECTOR_SOURCE[0], DETECTOR)):
        hub.add_repository(repository, {name: b"replaced since"})
    set_up_pack(tmp_path / "pack")
    assert_complete(tmp_path / "pack")
    assert not hub.asked("glintr100")

    hub.requests.clear()
    set_up_pack(tmp_path / "second")  # from the cache
    assert_complete(tmp_path / "second")
    assert not hub.asked(".onnx", "GET")


@needs_faces
def test_what_is_at_hand_is_not_asked_of_the_hub(hub: LoopbackHub, arcface: Path, tmp_path: Path) -> None:
    hub.add_repository(DETECTOR_SOURCE[0], {DETECTOR: models()[0].read_bytes()}, revision=DETECTOR_SOURCE[1])
    set_up_pack(tmp_path / "pack", arcface=arcface)
    assert_complete(tmp_path / "pack")
    assert not hub.asked("Arc2Face")


def test_an_empty_hub_is_an_environment_problem(hub: LoopbackHub, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=DETECTOR_SOURCE[0]):
        set_up_pack(tmp_path / "pack")
    assert not list(tmp_path.glob("pack/*"))


@needs_faces
def test_a_download_cut_short_leaves_no_file(
    hub: LoopbackHub, arcface: Path, tmp_path: Path, naps: list[float]
) -> None:
    hub.add_repository(DETECTOR_SOURCE[0], {DETECTOR: models()[0].read_bytes()}, revision=DETECTOR_SOURCE[1])
    hub.cut(DETECTOR, after=1000, times=None)
    with pytest.raises(EnvironmentProblem, match=DETECTOR):
        set_up_pack(tmp_path / "pack", arcface=arcface)
    assert not list(tmp_path.glob("pack/*"))
    hub.faults.clear()
    set_up_pack(tmp_path / "pack", arcface=arcface)
    assert_complete(tmp_path / "pack")


# --- kept, refused, never half


@needs_faces
def test_existing_files_are_kept(antelopev2: Path, arcface: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    set_up_pack(pack, antelopev2, arcface)
    times = {file: file.stat().st_mtime_ns for file in pack.iterdir()}
    (antelopev2 / DETECTOR).write_bytes(b"another detector")
    set_up_pack(pack, antelopev2, tmp_path / "not needed any more")
    assert_complete(pack)
    assert {file: file.stat().st_mtime_ns for file in pack.iterdir()} == times


@needs_faces
def test_a_pack_with_another_recognizer_is_refused(antelopev2: Path, arcface: Path, tmp_path: Path) -> None:
    """Set up inside insightface's own folder: its recognizer would win silently."""
    (antelopev2 / "genderage.onnx").unlink()
    with pytest.raises(BadInput, match=r"several recognizers.*glintr100"):
        set_up_pack(antelopev2, antelopev2, arcface)
    assert (antelopev2 / "glintr100.onnx").exists()


@pytest.mark.parametrize("kind", ["missing", "empty folder", "file", "zip without it"])
def test_a_source_without_the_detector_is_refused(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    if kind == "empty folder":
        source.mkdir()
    elif kind == "file":
        source.write_text("no zip")
    elif kind == "zip without it":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("antelopev2/glintr100.onnx", b"")
    with pytest.raises(BadInput, match=rf"antelopev2 = '.*source' holds no {DETECTOR}"):
        set_up_pack(tmp_path / "pack", source)
    assert not list(tmp_path.glob("pack/*"))


@needs_faces
def test_a_missing_recognizer_is_refused(antelopev2: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"arcface = '.*nowhere.onnx' is not a file"):
        set_up_pack(tmp_path / "pack", antelopev2, tmp_path / "nowhere.onnx")
    assert not list(tmp_path.glob(f"pack/*{RECOGNIZER}*"))


@needs_faces
def test_a_damaged_zip_is_refused(antelopev2: Path, arcface: Path, tmp_path: Path) -> None:
    source = zipped(antelopev2)
    content = bytearray(source.read_bytes())
    content[-5000] ^= 255  # in the detector, which lies last
    source.write_bytes(content)
    with pytest.raises(BadInput, match=r"antelopev2\.zip"):
        set_up_pack(tmp_path / "pack", source, arcface)
    assert not list(tmp_path.glob("pack/*"))


@needs_faces
def test_a_full_disk_leaves_no_half_file(
    antelopev2: Path, arcface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_bytes", half)
        with pytest.raises(EnvironmentProblem, match=r"disk is full"):
            set_up_pack(tmp_path / "pack", antelopev2, arcface)
    assert not list(tmp_path.glob("pack/*"))
    assert not list(tmp_path.glob("pack/.*"))
    set_up_pack(tmp_path / "pack", antelopev2, arcface)
    assert_complete(tmp_path / "pack")


def test_a_file_in_the_place_of_the_folder_is_an_environment_problem(tmp_path: Path) -> None:
    (tmp_path / "pack").write_text("a file")
    with pytest.raises(EnvironmentProblem, match=r"cannot write the face pack '.*pack'"):
        set_up_pack(tmp_path / "pack", tmp_path)
