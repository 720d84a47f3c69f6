"""``gammawear doctor``: looks a machine over, and says what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gammawear import checks, link_checks, logs, options
from gammawear.checks import Finding
from gammawear.options import takes_broker
from gammawear.settings import Setting, settings_of, unknown_variables
from protocol.broker_settings import BrokerSettings

_COLOURS: Final = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "problem": typer.colors.RED}


@takes_broker
def doctor_command(
    context: typer.Context,
    bundles: options.Bundles = None,
    connect: Annotated[bool, typer.Option(help="Connect to the broker.")] = True,
    as_json: options.AsJson = False,
    *,
    broker: BrokerSettings,
) -> None:
    """Check this machine: installation, settings, clock, ports, bundles, Bluetooth, broker. Exit status 1 on problems.

    Looks at what gateway and bridge are set to. On a broker where an account is one session (docs/security.md), it
    takes the session of whoever is connected with --username: check before that service runs, or with --no-connect.

    Examples:

      gammawear doctor

      gammawear --config gammawear.toml doctor --json
    """
    root: Any = context.find_root()
    found: list[Finding] = []
    with logs.quiet("protocol"):  # what it would say is in the report
        for finding in _look(root, bundles, broker if connect else None):
            found.append(finding)
            if not as_json:
                _say(finding)
    problems = any(finding.level == "problem" for finding in found)
    if as_json:
        typer.echo(json.dumps({"ok": not problems, "checks": [asdict(finding) for finding in found]}))
    if problems:
        raise typer.Exit(1)


def _look(root: Any, bundles: list[Path] | None, broker: BrokerSettings | None) -> Iterator[Finding]:  # noqa: ANN401
    rows = {(row.command, row.name): row for command in ("gateway", "bridge") for row in settings_of(root, (command,))}
    yield checks.check_python()
    yield checks.check_torch()
    wrong = [f"{row.command} {row.name}, {row.origin}: {row.problem}" for row in rows.values() if row.problem]
    yield from checks.check_settings(wrong, unknown_variables(root.command), _secrets(rows))
    yield checks.check_clock()
    yield from checks.check_space(Path.cwd())
    ports = _ports(rows)
    yield from checks.check_ports(ports)
    folders, usual = bundles or _paths(rows["gateway", "bundles"].value), Path("runs")
    yield from checks.check_bundles((*folders, usual) if usual.is_dir() else folders)
    yield asyncio.run(link_checks.check_bluetooth())
    if broker is None:
        return
    if broker.username is not None and any(checks.is_connected(*place) for place in ports if place[1]):
        text = "a gateway or bridge that runs here is connected; its account is one session, so this does not connect"
        yield Finding("ok", "broker", text)
        return
    yield from asyncio.run(link_checks.check_broker(broker))


def _ports(rows: dict[tuple[str, str], Setting]) -> dict[tuple[str, int], list[str]]:
    """Where gateway and bridge would serve: address and port, and the settings that say so."""
    found: dict[tuple[str, int], list[str]] = {}
    for (command, name), row in rows.items():
        kind, dash, last = name.rpartition("-")
        if dash and last == "port" and isinstance(row.value, int):
            address = str(rows[command, f"{kind}-address"].value)
            found.setdefault((address, row.value), []).append(f"{command} --{name}")
    return found


def _secrets(rows: dict[tuple[str, str], Setting]) -> list[Path]:
    named = [row.value for (_, name), row in rows.items() if name.endswith(("password-file", "token-file", "key-file"))]
    return list(dict.fromkeys(path for value in named for path in _paths(value)))


def _paths(value: object) -> list[Path]:
    several = value if isinstance(value, list | tuple) else [value]
    return [one for one in several if isinstance(one, Path)]


def _say(finding: Finding) -> None:
    level = typer.style(f"{finding.level:7}", fg=_COLOURS[finding.level])
    remedy = f"  ->  {finding.remedy}" if finding.remedy else ""
    typer.echo(f"{level}  {finding.check:9}  {finding.text}{remedy}")
