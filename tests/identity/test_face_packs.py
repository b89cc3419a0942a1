"""Folders with a face detector and a recognizer: what is accepted, and what is refused by name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.identity import FaceReader
from tests.photos import PACK, PORTRAITS, needs_faces

pytestmark = pytest.mark.usefixtures("no_download")


def model(path: Path, *, side: int = 112, outputs: int = 1) -> Path:
    """A model that does nothing, with the shapes of a recognizer (one output) or a detector (nine)."""
    shape = [1, 3, side, side]
    names = [f"y{number}" for number in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], [name]) for name in names],
        "nothing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, path)
    return path


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A pack that passes the first look."""
    model(tmp_path / "pack" / "det.onnx", side=640, outputs=9)
    model(tmp_path / "pack" / "arcface.onnx")
    return tmp_path / "pack"


def test_a_pack_of_detector_and_recognizer_is_accepted(pack: Path) -> None:
    model(pack / "genderage.onnx", side=96)
    model(pack / "landmarks.onnx", side=192)
    reader = FaceReader(str(pack), recognizer="arcface.onnx")
    assert reader.name == "arcface.onnx"
    assert reader.settings["detector"] == "det.onnx"


def remove_all(pack: Path) -> None:
    for file in pack.glob("*.onnx"):
        file.unlink()


def nest(pack: Path) -> None:
    (pack / "inner").mkdir()
    for file in pack.glob("*.onnx"):
        file.rename(pack / "inner" / file.name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            shutil.rmtree,
            r"there is no face pack at '.*pack'; `piu-lora bank models` sets one up, or pass pack=DIR",
        ),
        (remove_all, r"the face pack '.*pack' holds no \.onnx file; `piu-lora bank models`"),
        (nest, r"holds no \.onnx file; it is nested: pass '.*inner'"),
        (lambda pack: (pack / "det.onnx").unlink(), r"holds no detector, only arcface\.onnx"),
        (lambda pack: (pack / "arcface.onnx").unlink(), r"holds no recognizer, only det\.onnx"),
    ],
    ids=["missing", "empty", "nested", "no detector", "no recognizer"],
)
def test_an_incomplete_pack_is_an_environment_problem(
    pack: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(pack)
    with pytest.raises(EnvironmentProblem, match=message):
        FaceReader(pack)


def test_a_file_in_the_place_of_a_pack_is_an_environment_problem(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="there is no face pack"):
        FaceReader(model(tmp_path / "arcface.onnx"))


@pytest.mark.parametrize("recognizer", [None, "arcface.onnx"])
def test_two_recognizers_are_refused_by_name(pack: Path, recognizer: str | None) -> None:
    model(pack / "w600k.onnx")
    with pytest.raises(BadInput, match=r"several recognizers \(arcface\.onnx, w600k\.onnx\).*keep one"):
        FaceReader(pack, recognizer=recognizer)


def test_a_recognizer_that_is_not_there_is_named(pack: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"holds no recognizer glint\.onnx, only arcface\.onnx"):
        FaceReader(pack, recognizer="glint.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", None], ids=["empty", "text", "truncated"])
def test_a_damaged_model_is_refused_by_name(pack: Path, content: bytes | None) -> None:
    whole = (pack / "arcface.onnx").read_bytes()
    (pack / "arcface.onnx").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(
        BadInput, match=r"arcface\.onnx' cannot be read as an ONNX model: .*; fetch the face pack again"
    ):
        FaceReader(pack)


def test_an_unknown_provider_lists_those_that_are_there(pack: Path) -> None:
    with pytest.raises(
        BadInput, match=r"onnxruntime offers no 'MagicExecutionProvider' here, only .*CPUExecutionProvider"
    ):
        FaceReader(pack, providers=["MagicExecutionProvider"])


def test_an_unknown_policy_lists_the_known_ones(pack: Path) -> None:
    with pytest.raises(BadInput, match=r"faces\.several = 'most' is unknown; pass largest, only or all"):
        FaceReader(pack, several="most")  # type: ignore[arg-type]


def test_hidden_files_of_a_mac_are_no_models(pack: Path) -> None:
    (pack / "._det.onnx").write_bytes(b"\0\5\x16\7")
    (pack / "__MACOSX").mkdir()
    (pack / "__MACOSX" / "._det.onnx").write_bytes(b"\0\5\x16\7")
    assert FaceReader(pack).name == "arcface.onnx"
    nested = pack.parent / "outer"
    nested.mkdir()
    shutil.copytree(pack, nested / "antelopev2")
    (nested / "__MACOSX").mkdir()
    shutil.copy(pack / "det.onnx", nested / "__MACOSX")
    with pytest.raises(EnvironmentProblem, match=r"nested: pass '.*outer/antelopev2'"):
        FaceReader(nested)


@pytest.mark.parametrize("content", [b"", b"not a model", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_broken_model_that_nobody_needs_is_left_alone(
    pack: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (pack / "1k3d68.onnx").write_bytes(content)
    assert FaceReader(pack).name == "arcface.onnx"
    assert "it is not needed and was left alone" in caplog.text


def test_a_pointer_of_git_lfs_is_named(pack: Path) -> None:
    (pack / "arcface.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(BadInput, match=r"arcface\.onnx' is a pointer of Git LFS.*git lfs pull"):
        FaceReader(pack)


@needs_faces
def test_names_in_capitals_beside_a_broken_model(tmp_path: Path) -> None:
    detector, recognizer = sorted(PACK.glob("*.onnx"))
    shutil.copy(detector, tmp_path / "DET.ONNX")
    shutil.copy(recognizer, tmp_path / "REC.ONNX")
    (tmp_path / "genderage.onnx").touch()
    portrait = next(PORTRAITS.iterdir()) / "2024.jpg"
    found, wanted = (FaceReader(folder, threads=1).read(portrait)[0] for folder in (tmp_path, PACK))
    assert torch.equal(found.embedding, wanted.embedding)
