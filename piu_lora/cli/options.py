"""The options of the commands, as named types: those that several share, then those of one command each."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "Activations",
    "AdapterArgument",
    "AdapterFolder",
    "Against",
    "AllowNegative",
    "Antelope",
    "ArcfaceFile",
    "Bank",
    "Base",
    "Bystanders",
    "Calibrate",
    "CheckedIdentity",
    "Device",
    "DryRun",
    "Dtype",
    "EngineName",
    "Eps",
    "Force",
    "Histograms",
    "Identities",
    "Json",
    "Junit",
    "LedgerFile",
    "Limit",
    "Linked",
    "MaxAccU",
    "MaxForget",
    "MergeDoubles",
    "MinRetain",
    "MinSamples",
    "OwnLimit",
    "Pack",
    "PolicyFile",
    "Public",
    "PublicRepository",
    "PulledFolder",
    "QualityModel",
    "Rank",
    "RecognizerName",
    "References",
    "ReportFolder",
    "SearchedIdentity",
    "SecondBank",
    "SecondPack",
    "Seed",
    "Settings",
    "Shard",
    "ShowImages",
    "Stored",
    "Tolerance",
    "Unseen",
    "Variants",
    "Vary",
    "Weights",
    "Workers",
]

Precision = Literal["fp32", "bf16", "fp16"]
EngineName = Annotated[
    Literal["processes", "ray"],
    typer.Option("--engine", help="Where the work runs: processes of this machine, or a Ray cluster."),
]

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
    typer.Option(
        help="Folder of the face detector and recognizer (ONNX files), or dlib. By default $PIU_LORA_PACK."
    ),
]
SecondPack = Annotated[
    Path | None,
    typer.Option(
        "--second",
        help="Face pack of a second recognizer that only evaluates, or dlib. The base mini brings its own.",
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
Shard = Annotated[str, typer.Option(help="Largest size of a weights file, such as 2GB.")]
PublicRepository = Annotated[
    bool,
    typer.Option(
        "--public", help="Let everybody see a repository that is created. By default it is private."
    ),
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

# Of `bank`.
Antelope = Annotated[
    Path | None,
    typer.Option(help="Folder or zip of insightface's antelopev2, for its detector. By default downloaded."),
]
ArcfaceFile = Annotated[
    Path | None, typer.Option(help="Arc2Face's arcface.onnx. By default downloaded from the Hub.")
]
Eps = Annotated[
    float | None,
    typer.Option(
        help="Photographs only: cosine distance within a cluster (eps of DBSCAN). By default their number "
        "and spread decide; --calibrate proposes another."
    ),
]
MinSamples = Annotated[
    int,
    typer.Option(min=1, help="Photographs only: fewest photographs of a cluster (min_samples of DBSCAN)."),
]
Linked = Annotated[
    float | None,
    typer.Option(
        help="A folder for each identity: cosine from which two photographs show one person. By default the "
        "geometry of all folders decides."
    ),
]
MergeDoubles = Annotated[bool, typer.Option("--merge", help="Merge identities that are likely one person.")]
Calibrate = Annotated[
    Path | None,
    typer.Option(help="Write no bank; propose a value for --eps and draw the cosines into this PNG file."),
]
Workers = Annotated[int, typer.Option(min=0, help="Number of threads. 0 takes one for each core.")]
Histograms = Annotated[
    Path | None, typer.Option("--out", help="Draw the cosines as histograms into this PNG file.")
]
RecognizerName = Annotated[
    str | None,
    typer.Option(help="File name of the recognizer that made the embeddings, when its pack is not at hand."),
]

# Of `evaluate` and `compare`.
References = Annotated[
    Path | None,
    typer.Option(help="Photographs of the person that forget did not see, to measure the adapter against."),
]
QualityModel = Annotated[Path | None, typer.Option(help="ONNX model that rates the quality of faces.")]
MaxForget = Annotated[
    float | None,
    typer.Option(
        help="Fail when likeness to the forgotten person (ISM) is above this share of its value before."
    ),
]
MaxAccU = Annotated[
    float | None,
    typer.Option(help="Fail when more than this share of the forgotten person's images is recognised."),
]
MinRetain = Annotated[
    float | None,
    typer.Option(help="Fail when likeness of retained people (ISM) is below this share of its value before."),
]
ShowImages = Annotated[
    bool, typer.Option("--images", help="Show images of the forgotten person in report.html.")
]
Vary = Annotated[
    list[str],
    typer.Option(
        help="Compare several values of a setting: section.key=VALUE,VALUE for our methods, "
        "baseline:key=VALUE,VALUE for a baseline. Repeatable."
    ),
]
Variants = Annotated[
    list[str], typer.Option("--variant", help="Add a contender: 'METHOD section.key=VALUE ...'. Repeatable.")
]
Against = Annotated[
    str | None,
    typer.Option(help="Method that the others are compared with, on the people and seeds that both have."),
]

# Of `stack check`.
Bystanders = Annotated[int, typer.Option(min=1, help="Number of bystanders to sample from the bank.")]
Activations = Annotated[
    int,
    typer.Option(
        min=0, help="Number of people on whom the layers behind the latents are measured; 0 for none."
    ),
]
Limit = Annotated[
    float,
    typer.Option(
        min=0, help="Highest change of keys and values that is allowed for bystanders (95th percentile)."
    ),
]
OwnLimit = Annotated[
    float,
    typer.Option(
        min=0,
        help="Highest change by the other adapters that is allowed for an adapter's own person, "
        "as a share of what that adapter means to change.",
    ),
]

# Of `push`, `pull` and `verify`.
SearchedIdentity = Annotated[
    str | None,
    typer.Option(
        help="Whom the adapter forgets; the files are searched for it. By default taken from the ledger."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the files and the model card, and send nothing.")
]
CheckedIdentity = Annotated[
    str | None,
    typer.Option(help="Whom the adapter forgets. With it, the figures of the receipt are measured again."),
]
PulledFolder = Annotated[
    Path | None, typer.Option(help="Folder to create. By default named after the repository.")
]
