"""Nothing reports to anybody."""

import os
import subprocess
import sys
from pathlib import Path

from piu_lora.telemetry import switch_off

ROOT = Path(__file__).parents[1]
# It is off by itself where it believes in a test.
LOUD = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("ORT_")}


def test_onnxruntime_leaves_no_file_of_its_telemetry(tmp_path: Path) -> None:
    code = "from piu_lora.telemetry import import_onnxruntime; import_onnxruntime()"
    environment = {**LOUD, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []


def test_only_one_place_imports_onnxruntime() -> None:
    others = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "piu_lora").rglob("*.py")
        if "    import onnxruntime" in path.read_text(encoding="utf-8")
    }
    assert others == {"piu_lora/telemetry.py"}


def test_what_is_set_already_stays() -> None:
    stated, empty = {"ORT_DISABLE_TELEMETRY": "0"}, dict[str, str]()
    switch_off(stated)
    switch_off(empty)
    assert stated["ORT_DISABLE_TELEMETRY"] == "0"
    assert empty["ORT_DISABLE_TELEMETRY"] == "1"
