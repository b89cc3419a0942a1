"""Options that several commands share, as named types."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "AdapterArgument",
    "AdapterFolder",
    "AllowNegative",
    "Bank",
    "Base",
    "Device",
    "Dtype",
    "Force",
    "Identities",
    "Json",
    "Junit",
    "LedgerFile",
    "Pack",
    "PolicyFile",
    "Public",
    "Rank",
    "ReportFolder",
    "SecondBank",
    "SecondPack",
    "Seed",
    "Settings",
    "Stored",
    "Tolerance",
    "Unseen",
    "Weights",
]

Precision = Literal["fp32", "bf16", "fp16"]

Base = Annotated[
    str,
    typer.Option(
        help="The face generator: mini (comes with the package), arc2face, a folder, or a Hub id (@REVISION)."
    ),
]
Bank = Annotated[
    str | None,
    typer.Option(help="Bank file of identities. The base mini brings its own, which is the default for it."),
]
LedgerFile = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        help="File that records whom each adapter forgets; 'none' records nothing. "
        "By default $PIU_LORA_LEDGER, or a file in your home folder.",
    ),
]
Pack = Annotated[
    Path | None,
    typer.Option(help="Folder of the face detector and recognizer (ONNX files). By default $PIU_LORA_PACK."),
]
SecondPack = Annotated[
    Path | None,
    typer.Option(
        "--second", help="Face pack of a second recognizer that only evaluates. The base mini brings its own."
    ),
]
SecondBank = Annotated[
    Path | None, typer.Option(help="Bank of the same people, read by the second recognizer.")
]
Identities = Annotated[
    list[str],
    typer.Option(
        "--identity",
        help="Whom to forget: an id of the bank, a photograph, a folder of photographs, a .npy or "
        ".safetensors file of embeddings, or a .txt file with one of these a line. "
        "Repeat the option for several people.",
    ),
]
Device = Annotated[
    str, typer.Option(help="Where the models run: auto, cpu, mps, cuda, or one GPU such as cuda:1.")
]
Dtype = Annotated[Precision, typer.Option(help="Precision of the base's weights.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output where it exists already.")]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", help="TOML file of limits. The exit code is 1 when one of them is missed."),
]
Junit = Annotated[
    Path | None, typer.Option(help="Write the verdict to this file as JUnit XML, for CI systems.")
]
Public = Annotated[
    bool,
    typer.Option(
        "--public", help="Leave out of the report whatever is about the forgotten person, and all images."
    ),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder to create for report.json, report.md and report.html. By default none."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.")]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set", help="Set one value as section.key=value, for example train.steps=200. Repeatable."
    ),
]
AdapterArgument = Annotated[str, typer.Argument(help="Adapter folder, or Hub id USER/REPO (@REVISION).")]
AdapterFolder = Annotated[Path, typer.Option("--out", help="Adapter folder to create.")]
Weights = Annotated[
    list[float],
    typer.Option(
        "--weight", help="Weight of an adapter; one for each, in the order of the adapters. By default 1."
    ),
]
AllowNegative = Annotated[
    bool,
    typer.Option("--allow-negative", help="Allow weights below 0, which bring the forgotten person out."),
]
Rank = Annotated[int, typer.Option(min=0, help="Highest rank of a layer. 0 sets no limit.")]
Tolerance = Annotated[
    float, typer.Option(min=0, help="Drop singular values below this share of a layer's largest one.")
]
Stored = Annotated[Precision, typer.Option("--dtype", help="Precision of the stored factors.")]
Unseen = Annotated[
    Path | None,
    typer.Option(
        help="Further photographs of the person, which forgetting does not see: measured as a group of their "
        "own."
    ),
]
