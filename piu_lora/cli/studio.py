"""``piu-lora studio``."""

from typing import Annotated

import typer

from piu_lora.cli.options import Bank, Base, Device, Pack

__all__ = ["command"]


def command(
    base: Base = "mini",
    bank: Bank = None,
    pack: Pack = None,
    device: Device = "auto",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on. 0 takes a free one.")
    ] = 7860,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own needs --auth.")
    ] = "127.0.0.1",
    auth: Annotated[
        str,
        typer.Option(
            envvar="PIU_LORA_STUDIO_AUTH",
            show_envvar=False,
            help="USER:PASSWORD that browsers have to give. By default $PIU_LORA_STUDIO_AUTH.",
        ),
    ] = "",
) -> None:
    """Open the studio: forget people in the browser, and see before and after. Ctrl-C ends it, and removes
    what it kept.
    """
    from piu_lora.studio.bench import BaseChoice
    from piu_lora.studio.server import StudioSettings, serve

    settings = StudioSettings(BaseChoice(base, bank, pack, device), host, port, auth)
    typer.echo("starting the studio; the first page takes a few seconds", err=True)
    serve(settings, typer.echo)
