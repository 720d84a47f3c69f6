"""The ``gammawear`` command: puts the pieces together and turns errors into sentences."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

from gammawear import bluetooth, demo, learn, serve, vision
from quantization.errors import GammawearError

GATEWAY_ONLY = ("torch", "river")
"""Devices and bridges are installed without."""
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Wearable activity recognition over MQTT at four bits a sample. Begin with: gammawear demo",
)
app.command("demo")(demo.demo_command)
app.command("device")(serve.device_command)
app.command("gateway")(serve.gateway_command)
app.command("wearable")(bluetooth.wearable_command)
app.command("bridge")(bluetooth.bridge_command)
app.command("record")(bluetooth.record_command)
app.command("camera")(vision.camera_command)
learn.train_app.command("detector")(vision.train_detector)
app.add_typer(learn.train_app, name="train")
app.command("evaluate")(learn.evaluate_command)
app.add_typer(learn.datasets_app, name="datasets")
app.add_typer(learn.bundles_app, name="bundles")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gammawear {version('gammawear')}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on standard error.")] = False,
    version: Annotated[  # noqa: ARG001 - read by its callback
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False)],
    )


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 an error that is explained, 2 wrong usage, 130 stopped by Ctrl-C."""
    try:
        app(standalone_mode=True)
    except GammawearError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name not in GATEWAY_ONLY:
            raise
        Console(stderr=True).print("[bold red]error:[/] this needs an extra: pip install 'gammawear\\[gateway]'")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
