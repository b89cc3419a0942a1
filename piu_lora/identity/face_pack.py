"""The folder with a face detector and a recognizer: which of its files are which."""

import logging
from collections.abc import Sequence
from pathlib import Path

from piu_lora.errors import BadInput, EnvironmentProblem
from piu_lora.telemetry import import_onnxruntime
from piu_lora.tensors import pointer_advice

__all__ = ["check_providers", "models_of"]

_log = logging.getLogger("piu_lora")
_HELP = "`piu-lora bank models` sets one up"


def models_of(pack: Path, recognizer: str | None) -> tuple[Path, Path]:
    """Detector and recognizer of a pack. Looked for first: insightface would download a missing pack, or stop
    without a word.

    Args:
        recognizer: name of the file that it must be; None for whichever there is.

    Raises:
        EnvironmentProblem: no such pack, or it lacks one of them.
        BadInput: a damaged file, or several recognizers.
    """
    if not pack.is_dir():
        raise EnvironmentProblem(f"there is no face pack at {str(pack)!r}; {_HELP}, or pass pack=DIR")
    # By name in any case; a Mac leaves ._det.onnx beside det.onnx.
    files = [file for file in sorted(pack.iterdir()) if _is_model(file)]
    nested = [file for file in sorted(pack.glob("*/*")) if _is_model(file) and file.parent.name != "__MACOSX"]
    if not files:
        hint = f"it is nested: pass {str(nested[0].parent)!r}" if nested else _HELP
        raise EnvironmentProblem(f"the face pack {str(pack)!r} holds no .onnx file; {hint}")
    kinds: dict[Path, str] = {}
    broken: list[BadInput] = []
    for file in files:
        try:
            kinds[file] = _kind(file)
        except BadInput as error:
            broken.append(error)
    detectors = [file for file, kind in kinds.items() if kind == "detection"]
    recognizers = [file for file, kind in kinds.items() if kind == "recognition"]
    if broken and not (detectors and recognizers):
        raise broken[0]
    for unread in broken:
        _log.warning("%s; it is not needed and was left alone", unread)
    if not detectors or not recognizers:
        lacking = "detector" if not detectors else "recognizer"
        raise EnvironmentProblem(
            f"the face pack {str(pack)!r} holds no {lacking}, "
            f"only {', '.join(file.name for file in files)}; {_HELP}"
        )
    if recognizer is not None and recognizer not in [file.name for file in recognizers]:
        raise EnvironmentProblem(
            f"the face pack {str(pack)!r} holds no recognizer {recognizer}, only {recognizers[0].name}; "
            f"{_HELP}"
        )
    if len(recognizers) > 1:
        names = ", ".join(file.name for file in recognizers)
        raise BadInput(
            f"the face pack {str(pack)!r} holds several recognizers ({names}), "
            "and insightface would silently use the first; "
            "keep one (arcface.onnx for Arc2Face), move the others away"
        )
    return detectors[0], recognizers[0]


def _kind(file: Path) -> str:
    """``recognition``, ``detection`` or ``other``, by the shapes that insightface itself goes by."""
    onnxruntime = import_onnxruntime()

    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes are private
        raise BadInput(
            pointer_advice(file)
            or f"{str(file)!r} cannot be read as an ONNX model: {str(error).splitlines()[0]}; "
            "fetch the face pack again"
        ) from error
    shape, outputs = session.get_inputs()[0].shape, session.get_outputs()
    if len(outputs) >= 5:
        return "detection"
    # 192 is the landmark models' size, 96 that of age and gender.
    square = len(shape) == 4 and shape[2] == shape[3] and isinstance(shape[2], int)
    fits = square and shape[2] >= 112 and shape[2] % 16 == 0 and shape[2] != 192
    return "recognition" if fits and len(session.get_inputs()) == 1 else "other"


def check_providers(providers: Sequence[str]) -> None:
    """Raise ``BadInput`` for an execution provider that onnxruntime does not have here."""
    onnxruntime = import_onnxruntime()

    offered = onnxruntime.get_available_providers()
    for provider in providers:
        if provider not in offered:
            raise BadInput(
                f"onnxruntime offers no {provider!r} here, only {', '.join(offered)}; "
                "`piu-lora doctor` says why"
            )


def _is_model(file: Path) -> bool:
    return file.suffix.lower() == ".onnx" and not file.name.startswith(".") and file.is_file()
