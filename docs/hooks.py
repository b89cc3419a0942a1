"""Pages that the site makes of the code, so that they cannot fall behind it: commands, settings, Python."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PICTURES = {"comparison.png": "benchmarks/results/compare/comparison.png"}  # kept beside what they show


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the pictures that live outside of docs/."""
    pages = {
        "cli": commands_page,
        "settings": settings_page,
        "baselines": baselines_page,
        "python": python_page,
    }
    for name, page in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    for name, path in PICTURES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def commands_page() -> str:
    """Every command with its options, from the Typer application."""
    import typer
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from piu_lora.cli.app import app

    command = get_command(app)
    context = typer.Context(command, info_name="piu-lora")
    page: str = get_docs_for_click(obj=command, ctx=context, name="piu-lora", title="Commands")
    return page


def settings_page() -> str:
    """Every setting with its default on both families of bases, and what each method has otherwise."""
    from piu_lora import ForgetConfig
    from piu_lora.attacks import AuditConfig
    from piu_lora.config import ReportConfig
    from piu_lora.model import find_family
    from piu_lora.unlearn import METHODS

    bases = ("arc2face", "mini")
    families = {base: find_family(base) for base in bases}
    plain = {base: _every_setting(ForgetConfig.preset(families[base])) for base in bases}
    meanings = _descriptions(ForgetConfig)
    lines = [
        "# Settings",
        "",
        "A setting is `section.key`. Give it with `--set section.key=value`, in a TOML file (`--config`), or",
        "in Python with `ForgetConfig.preset(find_family('mini'), method).updated({...})`. Unknown",
        "names are refused with the nearest one that exists.",
        "",
        "| setting | what it is | arc2face | mini |",
        "|---|---|---|---|",
    ]
    for name in plain["arc2face"]:
        values = " | ".join(_code(plain[base].get(name)) for base in bases)
        lines.append(f"| `{name}` | {meanings.get(name, '')} | {values} |")
    lines += ["", "## What a method has otherwise", "", "| method | base | settings |", "|---|---|---|"]
    for method in METHODS:
        for base in bases:
            preset = _every_setting(ForgetConfig.preset(families[base], method))
            other = [f"`{key}={value}`" for key, value in preset.items() if plain[base].get(key) != value]
            lines.append(f"| {method} | {base} | {', '.join(other)} |")
    lines += ["", "## Of `evaluate` and `audit`", "", "| setting | what it is | default |", "|---|---|---|"]
    for kind in (ReportConfig, AuditConfig):
        meanings = _descriptions(kind)
        for name, value in _flat(kind().to_dict(), f"{kind.section}."):
            lines.append(f"| `{name}` | {meanings.get(name, '')} | {_code(value)} |")
    return "\n".join(lines) + "\n"


def baselines_page() -> str:
    """Every baseline and form of one, with its settings."""
    from piu_lora.unlearn.baselines import BASELINES

    lines = [
        "# Baselines",
        "",
        "The methods of others that `piu-lora compare` runs, each in the forms it is run in elsewhere. The",
        "docstrings of the modules in `piu_lora/unlearn/baselines/` have the equations, their source, and",
        "what was adapted. Vary a setting with `--vary BASELINE:key=VALUE,VALUE`.",
        "",
        "| name | what | source | how it is run |",
        "|---|---|---|---|",
    ]
    for name, baseline in BASELINES.items():
        lines.append(f"| `{name}` | {baseline.label} | {baseline.paper} | {baseline.about} |")
    lines += ["", "| setting | what it is | default |", "|---|---|---|"]
    for kind in dict.fromkeys(baseline.settings for baseline in BASELINES.values()):
        meanings = _descriptions(kind)
        for name, value in _flat(kind().to_dict(), f"{kind.section}."):
            meaning = meanings.get(name) or meanings.get(name.partition(".")[2]) or ""
            lines.append(f"| `{name}` | {meaning} | {_code(value)} |")
    return "\n".join(lines) + "\n"


def _every_setting(config: Any) -> dict[str, Any]:
    """Flat, with the sections of every method."""
    sections = {name: config.section_of(kind).to_dict() for name, kind in config.sections().items()}
    return dict(_flat(config.to_dict() | sections))


def _descriptions(kind: Any) -> dict[str, str]:
    """What each setting is, by its full name."""
    groups = [
        field.annotation for field in kind.model_fields.values() if hasattr(field.annotation, "section")
    ]
    groups += kind.sections().values() if hasattr(kind, "sections") else []
    return {
        group.setting_name(key): field.description or ""
        for group in (kind, *groups)
        for key, field in group.model_fields.items()
    }


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _code(value: Any) -> str:
    return "" if value is None else f"`{value!r}`" if isinstance(value, str) else f"`{value}`"


def python_page() -> str:
    """Every public name, by the docstring of its source."""
    import piu_lora

    lines = [
        "# Python",
        "",
        "Everything below is imported from `piu_lora`. Errors are subclasses of `PiuLoraError`: `BadInput`,",
        "`EnvironmentProblem`, and what `piu_lora.errors` says of them.",
    ]
    for name in piu_lora.__all__:
        if name.startswith("__"):
            continue
        value = getattr(piu_lora, name)
        lines += ["", f"::: {value.__module__}.{value.__qualname__}"]
    return "\n".join(lines) + "\n"
