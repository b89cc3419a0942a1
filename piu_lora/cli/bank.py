"""``piu-lora bank``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from piu_lora.cli.options import Device, Force, Json, Pack
from piu_lora.cli.output import bars, print_result

__all__ = ["app"]

app = typer.Typer(help="Identity banks: the people whom an adapter must leave alone.", no_args_is_help=True)
BankFile = Annotated[str, typer.Option(help="bank file, or mini for the embedded one")]
Double = Annotated[
    float,
    typer.Option(
        min=-1, max=1, help="identities whose centroids lie at this cosine or more are likely one person"
    ),
]
Several = Annotated[
    str, typer.Option(help="of several faces in a photograph: largest, only (refuse it) or all")
]


@app.callback()
def _group() -> None:
    """Identity banks."""


@app.command("models")
def models(
    pack: Pack = None,
    antelopev2: Annotated[
        Path | None,
        typer.Option(help="folder or zip of insightface's antelopev2, for its detector; else from the Hub"),
    ] = None,
    arcface: Annotated[Path | None, typer.Option(help="Arc2Face's arcface.onnx; else from the Hub")] = None,
    as_json: Json = False,
) -> None:
    """Set up the face pack: a detector and the recognizer of Arc2Face. They are for non-commercial research."""
    from piu_lora.jobs.banks.pack import set_up_pack

    folder, recognizer = set_up_pack(pack, antelopev2, arcface)
    facts = {"pack": str(folder), "recognizer": recognizer.name, "recognizer_sha256": recognizer.sha256}
    print_result(facts, f"face pack in {folder}, recognizer {recognizer}", as_json)


@app.command("build")
def build(
    photos: Annotated[
        Path,
        typer.Argument(
            help="a folder with a folder for each identity, or one of photographs only (clustered)"
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="bank file to write")] = None,
    pack: Pack = None,
    several: Several = "largest",
    eps: Annotated[float, typer.Option(help="flat folder: DBSCAN's eps, a cosine distance")] = 0.5,
    min_samples: Annotated[int, typer.Option(min=1, help="flat folder: DBSCAN's min_samples")] = 2,
    linked: Annotated[
        float, typer.Option(help="photographs in an identity's folder this close show one person")
    ] = 0.3,
    double: Double = 0.5,
    merge: Annotated[
        bool, typer.Option("--merge", help="make one identity of those that are likely one person")
    ] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="write no bank: propose eps, and draw the cosines into this PNG")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="threads; 0 takes one for each core")] = 0,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a bank from photographs; every photograph is in it, or listed with the reason why not."""
    from piu_lora.errors import BadInput
    from piu_lora.jobs.banks import build as job

    if calibrate is not None:
        _propose(photos, _reader(pack, several, device), calibrate, workers, force=force, as_json=as_json)
        return
    if out is None:
        raise BadInput(
            "bank build has nowhere to write: pass --out FILE for the bank, or --calibrate FILE.png for a proposal"
        )
    reader = _reader(pack, several, device)
    settings = job.ClusterSettings(eps, min_samples, linked, double, merge)
    result = job.build_bank(
        photos, out, reader, reader.settings, settings, workers=workers, force=force, progress=bars
    )
    facts = {
        "path": str(out), "digest": result.bank.digest, "identities": len(result.bank), "embeddings": len(result.bank.embeddings),
        "photos": result.photos, "faces": result.faces, "layout": result.layout, "merged": result.merged,
        "rejected": [{"photo": str(each.photo), "reason": each.reason} for each in result.rejected],
        "doubles": [vars(each) for each in result.doubles],
    }  # fmt: skip
    print_result(facts, "\n".join(job.account(result)), as_json)


def _reader(pack: Path | None, several: str, device: str) -> Any:
    from piu_lora.config import FacesConfig, ForgetConfig
    from piu_lora.identity import FaceReader
    from piu_lora.jobs.request.readers import default_pack, providers_for

    faces: FacesConfig = ForgetConfig().updated({"faces": {"several": several}}).faces
    # One thread for each session: photographs are read side by side.
    return FaceReader(
        pack or default_pack(), providers=providers_for(device), several=faces.several, threads=1
    )


def _propose(photos: Path, reader: Any, picture: Path, workers: int, *, force: bool, as_json: bool) -> None:
    from piu_lora.adapter import refuse_existing, write_file
    from piu_lora.evidence import cosine_histograms
    from piu_lora.jobs.banks.build import calibrate_photos

    refuse_existing(picture, force=force)
    found = calibrate_photos(
        photos,
        reader,
        reader.settings,
        workers=workers,
        cache=picture.with_name(f".{picture.name}.photos"),
        progress=bars,
    )
    marks = {"1 - eps": 1 - found.eps, "nearest stranger": found.impostor, "one person": found.same_mean}
    write_file(picture, cosine_histograms(found.same, found.different, marks, f"Proposed eps {found.eps}"))
    known = "from known identities" if found.labelled else "estimated, identities unknown"
    facts = {
        "eps": found.eps,
        "nearest_stranger": found.impostor,
        "same_person": found.same_mean,
        "labelled": found.labelled,
    }
    span = (
        f"halfway between the nearest stranger ({found.impostor:.3f}) and one person ({found.same_mean:.3f})"
    )
    text = f"eps {found.eps} ({known}): {span}; see {picture}"
    print_result(facts, text, as_json)


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(help="folder with embeddings.npy and labels.npy, or a copy of the paper's data set"),
    ],
    out: Annotated[Path, typer.Option(help="bank file to write")],
    pack: Pack = None,
    recognizer: Annotated[
        str | None,
        typer.Option(help="file name of the recognizer that made them, when its pack is not at hand"),
    ] = None,
    recognizer_sha256: Annotated[str, typer.Option(help="its SHA-256")] = "",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a bank of the arrays that the PIU paper publishes."""
    from piu_lora.identity import FaceReader, RecognizerId
    from piu_lora.jobs.banks.import_arrays import import_bank
    from piu_lora.jobs.request.readers import default_pack

    made_by = (
        RecognizerId(recognizer, recognizer_sha256) if recognizer else FaceReader(pack or default_pack()).id
    )
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
    bank: Annotated[str, typer.Argument(help="bank file, or mini for the embedded one")] = "mini",
    out: Annotated[Path | None, typer.Option(help="PNG for the histograms of the cosines")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Say what a bank holds: sizes, norms, cosines within and between people, anchors in the band."""
    from piu_lora.adapter import refuse_existing, write_file
    from piu_lora.evidence import cosine_histograms
    from piu_lora.jobs.banks.describe import describe_bank
    from piu_lora.jobs.request.request import bank_for

    if out is not None:
        refuse_existing(out, force=force)
    found = describe_bank(bank_for("mini", bank))
    if out is not None:
        write_file(
            out,
            cosine_histograms(
                found.same, found.different, {"anchors at": 0.2}, "Cosines of the bank's embeddings"
            ),
        )
    lines = [f"{name.replace('_', ' '):20} {_plain(value)}" for name, value in found.facts.items()]
    print_result(found.facts, "\n".join(lines), as_json)


def _plain(value: Any) -> str:
    return (
        ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
        if isinstance(value, dict)
        else str(value)
    )


@app.command("check")
def check(
    banks: Annotated[list[Path], typer.Argument(help="bank files")],
    double: Double = 0.5,
    as_json: Json = False,
) -> None:
    """Look for NaN, zero rows, mixed recognizers and identities that are likely one person; exit 1 when
    something is found.
    """
    from piu_lora.jobs.banks.describe import check_banks

    problems = check_banks(banks, double)
    print_result(
        {"banks": len(banks), "problems": problems}, "\n".join(problems) or f"{len(banks)} sound", as_json
    )
    if problems:
        raise typer.Exit(1)


@app.command("export")
def export(
    identity: Annotated[str, typer.Argument(help="an id of the bank")],
    out: Annotated[Path, typer.Option(help=".npy file to write, (n, d) float32 unit rows")],
    bank: BankFile = "mini",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write the embeddings of one identity, for tools that know no bank. They are biometric data: keep them
    safe.
    """
    from piu_lora.jobs.banks.export import export_embeddings

    count = export_embeddings(bank, identity, out, force=force)
    print_result({"path": str(out), "embeddings": count}, f"wrote {count} embeddings to {out}", as_json)
