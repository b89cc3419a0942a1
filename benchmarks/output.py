"""Where a benchmark's figures go."""

import json
from pathlib import Path
from typing import Any

__all__ = ["publish"]


def publish(table: str, result: dict[str, Any], out: Path | None, markdown: Path | None) -> None:
    """Print the table; write the raw figures as JSON and the table as Markdown where asked."""
    print(table)
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")
    if markdown:
        markdown.write_text(table + "\n")
