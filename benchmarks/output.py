"""Where a benchmark's figures go."""

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["parser", "publish", "write_table"]


def publish(table: str, result: dict[str, Any], out: Path | None, markdown: Path | None) -> None:
    """Print the table; write the raw figures as JSON and the table as Markdown where asked."""
    print(table)
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")
    if markdown:
        markdown.write_text(table + "\n")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows the description as it was written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def write_table(out: Path, note: str, table: str) -> None:
    """Print the table, and write it beside the figures ``out``, as Markdown below a note."""
    out.with_suffix(".md").write_text(f"{note}\n\n{table}\n")
    print(table)
