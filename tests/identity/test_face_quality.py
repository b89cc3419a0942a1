"""A face-quality model is a plain ONNX file: here one that says how bright a picture is."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.identity import FaceQuality


def model(path: Path, size: int | str = 8, axes: tuple[int, ...] = (1, 2, 3), channels: int = 3) -> Path:
    """The mean over ``axes`` of an input (1, channels, size, size)."""
    given = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, channels, size, size])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, None)
    node = helper.make_node("ReduceMean", ["picture"], ["score"], axes=axes, keepdims=0)
    graph = helper.make_graph([node], "brightness", [given], [score])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def test_scores_are_the_models(tmp_path: Path) -> None:
    pictures = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = FaceQuality(model(tmp_path / "bright.onnx"))(pictures)
    np.testing.assert_allclose(found, (pictures * 2 - 1).mean(dim=(1, 2, 3)).numpy(), atol=1e-6)


def test_pictures_are_resized(tmp_path: Path) -> None:
    flat = torch.full((2, 3, 30, 30), 0.75)
    assert FaceQuality(model(tmp_path / "bright.onnx"))(flat) == pytest.approx([0.5, 0.5])


def test_files_that_are_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="there is no face-quality model at"):
        FaceQuality(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(BadInput, match="cannot be read as an ONNX model"):
        FaceQuality(tmp_path / "text.onnx")
    with pytest.raises(BadInput, match=r"takes \[1, 1, 8, 8\]; expected"):
        FaceQuality(model(tmp_path / "grey.onnx", channels=1))
    with pytest.raises(BadInput, match="gives 3 values for a picture"):
        FaceQuality(model(tmp_path / "colours.onnx", axes=(2, 3)))(torch.rand(1, 3, 8, 8))
