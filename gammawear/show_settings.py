"""``gammawear settings``: what each setting is and where it comes from."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gammawear.logs import NOTES
from gammawear.settings import Setting, commands, password_origin, settings_of, takes_broker, unknown_variables


def settings_command(
    context: typer.Context,
    command: Annotated[
        list[str] | None, typer.Argument(help="Show all settings of this command, such as: gateway, or: train har.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array on standard output.")] = False,
) -> None:
    """Show settings and where they come from: a flag, the environment, a file, or the default.

    Without a command: the settings of all commands that are not the defaults. Secrets are not shown.

    Examples:

      gammawear settings

      gammawear --config gammawear.toml settings gateway --json
    """
    root = context.find_root()
    rows = settings_of(root, ())
    if command:
        rows += _of(root, tuple(command))
    else:
        every = [row for path, _ in commands(root.command) if path for row in _of(root, path)]
        rows += [row for row in every if row.origin != "default"]
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], default=str))
    else:
        table = Table(box=None, pad_edge=False)
        for column in ("command", "setting", "value", "from"):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in (row.command, row.name, _readable(row), row.origin)))
        Console().print(table)
    for name in unknown_variables(root.command):
        NOTES.print(f"{name} is set in the environment, and is no setting", soft_wrap=True, highlight=False)


def _readable(row: Setting) -> str:
    several = row.value if isinstance(row.value, list | tuple) else [row.value]
    value = ", ".join("" if one is None else str(one) for one in several)
    return value if row.problem is None else f"{value} ({row.problem})"


def _of(root: Any, path: tuple[str, ...]) -> list[Setting]:  # noqa: ANN401 - see settings.Command
    rows = settings_of(root, path)
    found = dict(commands(root.command))[path]
    if takes_broker(found):
        rows.append(password_origin(next(row for row in rows if row.name == "password-file")))
    return rows
