"""The ``gammawear`` command: puts the pieces together and turns errors into sentences."""

from __future__ import annotations

import errno
import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from gammawear import bluetooth, demo, doctor, evaluation, learn, logs, serve, show_settings, vision
from gammawear.logs import LogFormat, LogLevel
from gammawear.settings import SettingsFile, name_variables, read_settings
from quantization.errors import GammawearError

EXTRA_OF = {"torch": "gateway", "river": "gateway", "pycocotools": "train"}
"""Modules that commands import without asking first, and what installs them."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Writing says these without a file's name."""
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
app.command("evaluate")(evaluation.evaluate_command)
app.add_typer(learn.datasets_app, name="datasets")
app.add_typer(learn.bundles_app, name="bundles")
app.command("settings")(show_settings.settings_command)
app.command("doctor")(doctor.doctor_command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gammawear {version('gammawear')}")
        raise typer.Exit


def _config(context: typer.Context, path: Path | None) -> None:
    if path is not None and not context.resilient_parsing:
        file = read_settings(context, path)
        context.default_map = file.defaults
        context.meta[SettingsFile.__name__] = file


@app.callback()
def _options(
    config: Annotated[  # noqa: ARG001 - read by its callback
        Path | None,
        typer.Option(help="TOML file of settings.", envvar="GAMMAWEAR_CONFIG", callback=_config, is_eager=True),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="The same as --log-level info.")] = False,
    log_level: Annotated[
        LogLevel, typer.Option(help="The least that is logged, on standard error.", envvar="GAMMAWEAR_LOG_LEVEL")
    ] = LogLevel.WARNING,
    log_format: Annotated[
        LogFormat, typer.Option(help="json: one object a line on standard error.", envvar="GAMMAWEAR_LOG_FORMAT")
    ] = LogFormat.TEXT,
    version: Annotated[  # noqa: ARG001 - read by its callback
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    logs.configure(log_format, LogLevel.INFO if verbose and log_level is LogLevel.WARNING else log_level)


def command_line() -> Any:  # noqa: ANN401 - typer has a copy of click inside without public types
    """All commands, as typer's own objects, their options with the names of their environment variables."""
    root = typer.main.get_command(app)
    name_variables(root)
    return root


def main() -> None:
    """Run the command line. Exit status: 0 done, 1 an error that is explained, 2 wrong usage, 130 stopped by Ctrl-C."""
    try:
        command_line()(standalone_mode=True)
    except GammawearError as error:
        logs.say_error(error)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_OF:
            raise
        logs.say_error(ModuleNotFoundError(f"this needs an extra: pip install 'gammawear[{EXTRA_OF[error.name]}]'"))
        sys.exit(1)
    except OSError as error:
        if error.filename is None and error.errno not in _FULL:
            raise
        logging.getLogger(__name__).debug("where it happened", exc_info=error)
        where = "" if error.filename is None else f"{error.filename}: "
        logs.say_error(OSError(f"{where}{error.strerror or error}"))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
