"""Options that several commands share, as named types."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "AdapterArgument",
    "AllowNegative",
    "Bank",
    "Base",
    "Device",
    "Dtype",
    "Force",
    "Identities",
    "Identity",
    "Json",
    "Junit",
    "LedgerFile",
    "Pack",
    "PolicyFile",
    "Public",
    "SecondBank",
    "SecondPack",
    "Seed",
    "Settings",
]

Base = Annotated[str, typer.Option(help="mini (embedded), arc2face, a folder, or a Hub id[@revision]")]
Bank = Annotated[str | None, typer.Option(help="bank file; the embedded one by default for --base mini")]
LedgerFile = Annotated[
    str | None,
    typer.Option(
        "--ledger", help="ledger file; $PIU_LORA_LEDGER or the user's own by default, none for none"
    ),
]
Pack = Annotated[
    Path | None, typer.Option(help="folder of the face detector and recognizer; $PIU_LORA_PACK by default")
]
SecondPack = Annotated[
    Path | None,
    typer.Option("--second", help="face pack of a recognizer that only evaluates; mini has its own"),
]
SecondBank = Annotated[Path | None, typer.Option(help="the bank's people by that recognizer")]
Identity = Annotated[
    str,
    typer.Option(help="a bank id, a photo, a folder of photos, or a .npy/.safetensors file of embeddings"),
]
Identities = Annotated[
    list[str],
    typer.Option(
        "--identity",
        help="a bank id, a photo, a folder of photos, a .npy/.safetensors file of embeddings; repeatable; or a .txt list",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Dtype = Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="precision of the base's weights")]
Force = Annotated[bool, typer.Option("--force", help="replace what is there")]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="TOML file of limits; exit 1 when one is missed")
]
Junit = Annotated[Path | None, typer.Option(help="JUnit XML of the verdict, for CI systems")]
Public = Annotated[
    bool, typer.Option("--public", help="write nothing about the forgotten person, and no image")
]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
Seed = Annotated[int, typer.Option(help="seed of every random draw")]
Settings = Annotated[
    list[str], typer.Option("--set", help="section.key=value, repeatable, for example train.steps=200")
]
AdapterArgument = Annotated[str, typer.Argument(help="adapter folder, or Hub id USER/REPO[@revision]")]
AllowNegative = Annotated[
    bool, typer.Option("--allow-negative", help="allow weights below 0, which bring the person out")
]
