"""The rooms of the house: imports go down only, and heavy libraries enter by one door each."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "piu_lora"
FLOORS = {
    "cli": 7,
    "studio": 6,
    "jobs": 5,
    "attacks": 4,
    "unlearn": 3,
    "adapter": 3,
    "evidence": 3,
    "model": 2,
    "identity": 1,
    "engine": 0,
    "hub": 0,
}
# Floors within jobs/: a request is opened below what answers it; whole jobs stand on top.
JOBS = {
    "releases": 4, "arena": 4,
    "forget": 3, "auditing": 3,
    "training": 2, "evaluation": 2, "banks": 2, "stacks": 2, "adapters": 2,
    "request": 1, "ledger": 1, "doctor": 1,
}  # fmt: skip
DOORS = {
    "peft": {"model/lora.py"},
    "accelerate": {"jobs/training/launched.py", "model/offload.py"},
    "insightface": {"identity/faces.py"},
    "gradio": {"studio/page.py", "studio/theme.py", "studio/server.py", "studio/pages"},
    "huggingface_hub": {
        "hub/cache.py",
        "hub/download.py",
        "hub/errors.py",
        "hub/upload.py",
        "adapter/card.py",
    },
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def room(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "piu_lora" else ""


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    if own not in FLOORS:
        return
    for name in imported(path):
        other = room(name)
        if other in FLOORS and other != own:
            assert FLOORS[other] < FLOORS[own], f"{own} imports {name}, which is not below it"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "jobs").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_imports_within_jobs_go_down(path: Path) -> None:
    own = path.relative_to(ROOT / "jobs").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[:2] == ["piu_lora", "jobs"] and len(parts) > 2 and parts[2] != own:
            assert JOBS[parts[2]] < JOBS[own], f"jobs/{own} imports {name}, which is not below it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_have_one_door(path: Path) -> None:
    for name in imported(path):
        library = name.split(".")[0]
        if library in DOORS:
            place = path.relative_to(ROOT)
            doors = {place.as_posix(), place.parent.as_posix()}
            assert doors & DOORS[library], f"{library} enters by {path}"


def test_bottom_floor_imports_nothing_of_ours_but_itself() -> None:
    for name in (
        "errors.py",
        "documents.py",
        "foreign.py",
        "folders.py",
        "palette.py",
        "plugins.py",
        "schema_words.py",
        "settings.py",
        "config.py",
        "progress.py",
        "telemetry.py",
        "tensors.py",
        "threads.py",
        "writing.py",
        "interrupts.py",
    ):
        assert {room(other) for other in imported(ROOT / name)} <= {
            "",
            "errors",
            "foreign",
            "schema_words",
            "settings",
        }


def test_files_stay_readable() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in modules()}
    assert max(lengths.values()) <= 350
    assert sorted(lengths.values())[len(lengths) // 2] <= 110
