"""What people read of a bank."""

from typing import TYPE_CHECKING, Any

from piu_lora.cli.output import Table

if TYPE_CHECKING:
    from piu_lora.jobs.banks.build import BankBuild

__all__ = ["account", "constants_table", "value_text"]


def account(build: "BankBuild") -> list[str]:
    """The build in lines for people: counts, every rejected photograph, every double."""
    from piu_lora.identity.photo_files import printable

    bank, verb = build.bank, "merged" if build.merged else "double?"
    photographs = f"{build.photos} photographs ({build.faces} faces)"
    return [
        f"{len(bank)} identities, {len(bank.embeddings)} embeddings from {photographs}",
        *(f"left out  {printable(entry.photo)}: {entry.reason}" for entry in build.rejected),
        *(f"turned  {printable(photo)}: it was not upright" for photo in build.turned),
        *(f"{verb}  {pair.first} and {pair.second}: cosine {pair.cosine:.3f}" for pair in build.doubles),
        f"digest {bank.digest}",
    ]


def value_text(value: Any) -> str:
    """A figure, or a group of them, in a line."""
    return (
        ", ".join(f"{key} {value_text(part)}" for key, part in value.items())
        if isinstance(value, dict)
        else str(value)
    )


def constants_table(rows: list[dict[str, Any]]) -> Table:
    """Settings, their values, where these are from, and why."""
    lines = [[row["name"], f"{row['value']:g}", row["origin"], row["why"]] for row in rows]
    return Table(["setting", "value", "origin", "why"], lines)
