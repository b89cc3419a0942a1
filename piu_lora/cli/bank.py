"""``piu-lora bank``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from piu_lora.cli.bank_words import account, constants_table, value_text
from piu_lora.cli.messages import translated
from piu_lora.cli.options import (
    Antelope,
    ArcfaceFile,
    Calibrate,
    Device,
    Eps,
    Force,
    Histograms,
    Json,
    Linked,
    MergeDoubles,
    MinSamples,
    Pack,
    RecognizerName,
    Settings,
    Workers,
)
from piu_lora.cli.output import Facts, Part, bars, print_result

if TYPE_CHECKING:
    from piu_lora.identity.cluster import Calibration
    from piu_lora.jobs.banks.build import BankBuild

__all__ = ["account", "app"]

app = typer.Typer(
    help="Make and inspect identity banks: the people whom an adapter must leave alone.", no_args_is_help=True
)
BankFile = Annotated[str, typer.Option(help="Bank file, or mini for the embedded one.")]
Double = Annotated[
    float | None,
    typer.Option(
        min=-1,
        max=1,
        help="Report two identities as likely one person when their centroids lie at this cosine or more. "
        "By default the bank's geometry decides.",
    ),
]
Several = Annotated[
    str,
    typer.Option(
        help="Faces to take where a photograph shows several: largest, all, or only (which refuses it)."
    ),
]


@app.callback()
def _group() -> None:
    """Make and inspect identity banks."""


@app.command("models")
def models(
    pack: Pack = None, antelopev2: Antelope = None, arcface: ArcfaceFile = None, as_json: Json = False
) -> None:
    """Set up the face pack: a detector and the recognizer of Arc2Face.

    Both are for non-commercial research only.
    """
    from piu_lora.jobs.banks.pack import set_up_pack

    folder, recognizer = set_up_pack(pack, antelopev2, arcface)
    facts = {"pack": str(folder), "recognizer": recognizer.name, "recognizer_sha256": recognizer.sha256}
    print_result(facts, f"face pack in {folder}, recognizer {recognizer}", as_json)


@app.command("build")
def build(
    photos: Annotated[
        Path,
        typer.Argument(
            help="Folder with a folder of photographs for each identity, or with photographs only, which are "
            "then clustered."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Bank file to write.")] = None,
    pack: Pack = None,
    several: Several = "largest",
    eps: Eps = None,
    min_samples: MinSamples = 2,
    linked: Linked = None,
    double: Double = None,
    merge: MergeDoubles = False,
    calibrate: Calibrate = None,
    workers: Workers = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a bank from photographs.

    Every photograph is in the bank, or listed with the reason why not.
    """
    from piu_lora.errors import BadInput
    from piu_lora.jobs.banks import build as job

    if calibrate is not None:
        _propose(photos, _reader(pack, several, device), calibrate, workers, force=force, as_json=as_json)
        return
    if out is None:
        raise BadInput(
            "bank build has nowhere to write: pass out=FILE for the bank, or calibrate=FILE.png for a "
            "proposal"
        )
    reader = _reader(pack, several, device)
    settings = job.ClusterSettings(eps, min_samples, linked, double, merge)
    result = job.build_bank(
        photos, out, reader, reader.settings, settings, workers=workers, force=force, progress=bars
    )
    print_result(_built(result, out), account(result), as_json)


def _built(result: "BankBuild", out: Path) -> dict[str, Any]:
    from piu_lora.identity.photo_files import printable

    geometry = result.bank.geometry
    return {
        "path": str(out),
        "digest": result.bank.digest,
        "identities": len(result.bank),
        "embeddings": len(result.bank.embeddings),
        "photos": result.photos,
        "faces": result.faces,
        "layout": result.layout,
        "merged": result.merged,
        "turned": [printable(photo) for photo in result.turned],
        "rejected": [{"photo": printable(entry.photo), "reason": entry.reason} for entry in result.rejected],
        "geometry": None if geometry is None else geometry.to_dict(),
        "doubles": [vars(pair) for pair in result.doubles],
    }


def _reader(pack: Path | None, several: str, device: str) -> Any:
    from piu_lora.config import FacesConfig, ForgetConfig
    from piu_lora.jobs.request.readers import open_reader

    faces: FacesConfig = ForgetConfig().updated({"faces": {"several": several}}).faces
    # One thread for each session: photographs are read side by side.
    return open_reader(pack, faces.several, device, threads=1)


def _propose(photos: Path, reader: Any, picture: Path, workers: int, *, force: bool, as_json: bool) -> None:
    from piu_lora.adapter import refuse_existing, write_file
    from piu_lora.evidence import cosine_histograms
    from piu_lora.jobs.banks.build import calibrate_photos

    refuse_existing(picture, force=force)
    proposal = calibrate_photos(
        photos,
        reader,
        reader.settings,
        workers=workers,
        cache=picture.with_name(f".{picture.name}.photos"),
        progress=bars,
    )
    marks = {
        "1 - eps": 1 - proposal.eps,
        "nearest stranger": proposal.impostor,
        "one person": proposal.same_mean,
    }
    write_file(
        picture, cosine_histograms(proposal.same, proposal.different, marks, f"Proposed eps {proposal.eps}")
    )
    facts = {
        "eps": proposal.eps,
        "nearest_stranger": proposal.impostor,
        "same_person": proposal.same_mean,
        "labelled": proposal.labelled,
    }
    print_result(facts, _proposal_text(proposal, picture), as_json)


def _proposal_text(proposal: "Calibration", picture: Path) -> str:
    origin = "from known identities" if proposal.labelled else "estimated, identities unknown"
    stranger = f"the nearest stranger ({proposal.impostor:.3f})"
    likeness = f"one person ({proposal.same_mean:.3f})"
    return f"eps {proposal.eps} ({origin}): halfway between {stranger} and {likeness}; see {picture}"


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(help="Folder with embeddings.npy and labels.npy, or a copy of the paper's data set."),
    ],
    out: Annotated[Path, typer.Option(help="Bank file to write.")],
    pack: Pack = None,
    recognizer: RecognizerName = None,
    recognizer_sha256: Annotated[str, typer.Option(help="SHA-256 of that file.")] = "",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Import the arrays that the PIU paper publishes into a bank."""
    from piu_lora.identity import RecognizerId
    from piu_lora.jobs.banks.import_arrays import import_bank
    from piu_lora.jobs.request.readers import open_reader

    made_by = RecognizerId(recognizer, recognizer_sha256) if recognizer else open_reader(pack).id
    bank = import_bank(source, out, made_by, force=force)
    facts = {
        "path": str(out),
        "digest": bank.digest,
        "identities": len(bank),
        "embeddings": len(bank.embeddings),
        **bank.settings,
    }
    print_result(
        facts,
        f"{len(bank)} identities, {len(bank.embeddings)} embeddings in {out}\ndigest {bank.digest}",
        as_json,
    )


@app.command("show")
def show(
    bank: Annotated[str, typer.Argument(help="Bank file, or mini for the embedded one.")] = "mini",
    out: Histograms = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Show what a bank holds: sizes, norms, cosines within and between people, anchors in the band."""
    from piu_lora.adapter import refuse_existing, write_file
    from piu_lora.evidence import cosine_histograms
    from piu_lora.jobs.banks.describe import describe_bank
    from piu_lora.jobs.banks.geometry import geometry_in_words
    from piu_lora.jobs.request.request import bank_for

    if out is not None:
        refuse_existing(out, force=force)
    described = describe_bank(bank_for("mini", bank))
    if out is not None:
        write_file(
            out,
            cosine_histograms(
                described.same,
                described.different,
                {"anchors at": 0.2},
                "Cosines of the bank's embeddings",
                described.geometry,
            ),
        )
    pairs = [
        (name.replace("_", " "), value_text(value))
        for name, value in described.facts.items()
        if name != "geometry"
    ]
    print_result(described.facts, [Facts(pairs, 20), "", *geometry_in_words(described.geometry)], as_json)


@app.command("check")
def check(
    banks: Annotated[list[Path], typer.Argument(help="Bank files.")],
    double: Double = None,
    constants: Annotated[
        bool,
        typer.Option(
            "--constants",
            help="Show the settings that follow from each bank's geometry, and why they are what they are.",
        ),
    ] = False,
    settings: Settings = [],
    as_json: Json = False,
) -> None:
    """Check banks for NaN, zero rows, mixed recognizers and identities that are likely one person.

    The exit code is 1 when something is wrong.
    """
    from piu_lora.jobs.banks.describe import check_banks

    problems = check_banks(banks, double)
    facts: dict[str, Any] = {"banks": len(banks), "problems": problems}
    parts: list[Part] = [*map(translated, problems)] or [f"{len(banks)} sound"]
    if constants:
        from piu_lora.jobs.banks.describe import constants_of

        facts["constants"] = constants_of(banks, settings)
        parts += [constants_table(rows) for rows in facts["constants"].values()]
    print_result(facts, parts, as_json)
    if problems:
        raise typer.Exit(1)


@app.command("export")
def export(
    identity: Annotated[str, typer.Argument(help="Id of the identity in the bank.")],
    out: Annotated[Path, typer.Option(help="The .npy file to write: (n, d) float32, rows of length 1.")],
    bank: BankFile = "mini",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Export the embeddings of one identity to a .npy file, for other tools.

    They are biometric data: keep them safe.
    """
    from piu_lora.jobs.banks.export import export_embeddings

    count = export_embeddings(bank, identity, out, force=force)
    print_result({"path": str(out), "embeddings": count}, f"wrote {count} embeddings to {out}", as_json)
