"""Pages that the site makes of the code itself, so that they cannot fall behind it: commands, settings, Python."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PICTURES = {"comparison.png": "benchmarks/results/compare/comparison.png"}  # kept beside what they show


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the pictures that live outside of docs/."""
    pages = {"cli": commands_page, "settings": settings_page, "python": python_page}
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
    from piu_lora.unlearn import METHODS

    bases = ("arc2face", "mini")
    plain = {base: dict(_flat(ForgetConfig.preset(base).to_dict())) for base in bases}
    lines = [
        "# Settings",
        "",
        "A setting is `section.key`. Give it with `--set section.key=value`, in a TOML file (`--config`), or in",
        "Python with `ForgetConfig.preset(base, method).updated({'section': {'key': value}})`. Unknown names are",
        "refused with the nearest one that exists.",
        "",
        "| setting | arc2face | mini |",
        "|---|---|---|",
    ]
    for name in plain["arc2face"]:
        lines.append(f"| `{name}` | {' | '.join(_code(plain[base].get(name)) for base in bases)} |")
    lines += ["", "## What a method has otherwise", "", "| method | base | settings |", "|---|---|---|"]
    for method in METHODS:
        for base in bases:
            preset = dict(_flat(ForgetConfig.preset(base, method).to_dict()))
            other = [f"`{key}={value}`" for key, value in preset.items() if plain[base].get(key) != value]
            lines.append(f"| {method} | {base} | {', '.join(other)} |")
    return "\n".join(lines) + "\n"


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
