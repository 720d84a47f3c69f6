"""Settings from a flag, the environment or a TOML file, in this order, and what came from where.

The names follow from the flags: ``--metrics-port`` of ``gammawear gateway`` is ``GAMMAWEAR_GATEWAY_METRICS_PORT`` in
the environment, and ``metrics_port`` in the table ``[gateway]`` of the file. The options of the broker are the same for
all commands, so they are ``GAMMAWEAR_PORT`` and so on, and stand in the table ``[broker]``. Options of ``gammawear``
itself have no table.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import typer

from quantization.errors import GammawearError

PREFIX: Final = "GAMMAWEAR_"
PASSWORD: Final = PREFIX + "PASSWORD"
BROKER_TABLE: Final = "broker"
BROKER_FLAGS: Final = frozenset(
    {"host", "port", "username", "password-file", "tls", "ca-file", "cert-file", "key-file", "mqtt"}
)
MAX_FILE_BYTES: Final = 2**20
_NO_SETTINGS: Final = frozenset({"help", "version", "config", "install-completion", "show-completion"})

Command = Any
"""A command of typer, which has a copy of click inside without public types."""
CommandPath = tuple[str, ...]


class SettingsError(GammawearError, ValueError):
    """A settings file, or a file that a setting names, that cannot be used."""


@dataclass(frozen=True)
class SettingsFile:
    """What a file says, checked.

    Attributes:
        path: of the file.
        defaults: what takes the place of the options' defaults, by the name of the parameter, subcommands nested.
        tables: the table that each value stands in, by command and flag.
    """

    path: Path
    defaults: dict[str, Any]
    tables: dict[tuple[CommandPath, str], str]


@dataclass(frozen=True)
class Setting:
    """One value and where it comes from: ``flag``, ``environment NAME``, ``file PATH [TABLE]`` or ``default``."""

    command: str
    name: str
    value: object
    origin: str
    variable: str
    problem: str | None = None


def commands(root: Command, path: CommandPath = ()) -> Iterator[tuple[CommandPath, Command]]:
    """Every command with its path, groups included, ``root`` first."""
    yield path, root
    for name, command in getattr(root, "commands", {}).items():
        yield from commands(command, (*path, name))


def settable(command: Command) -> dict[str, Any]:
    """The options that can be set without a flag, by flag without the dashes."""
    named = {_flag(parameter): parameter for parameter in command.params if parameter.param_type_name == "option"}
    return {flag: option for flag, option in named.items() if flag not in _NO_SETTINGS}


def _flag(option: Any) -> str:  # noqa: ANN401 - see Command
    return max(option.opts, key=len).lstrip("-")


def name_variables(root: Command) -> None:
    """Give every option that can be set without a flag its environment variable."""
    for path, command in commands(root):
        for flag, option in settable(command).items():
            if option.envvar is None:
                option.show_envvar = False  # it would be longer than the help
                option.envvar = PREFIX + "_".join((*path, flag)).replace("-", "_").upper()


def variables(root: Command) -> set[str]:
    """The names of all environment variables that are read."""
    named = {option.envvar for _, command in commands(root) for option in settable(command).values()}
    return named | {PASSWORD, PREFIX + "CONFIG"}


def unknown_variables(root: Command) -> list[str]:
    """Those in the environment that begin like ours and that nobody reads: misspelt, or of a service manager."""
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in variables(root))


def takes_broker(command: Command) -> bool:
    """Whether a command has the options of a broker."""
    return settable(command).keys() >= BROKER_FLAGS


def read_settings(context: Any, path: Path) -> SettingsFile:  # noqa: ANN401 - see Command
    """Read and check a file.

    Args:
        context: of the root command; values are checked as on the command line.
        path: of the file. Paths in it are relative to its folder.

    Raises:
        SettingsError: no TOML, a table or key that is none of ours, a value that its option does not take, a secret.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise SettingsError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        document = tomllib.loads(text.decode())
    except OSError as error:
        raise SettingsError(f"cannot read the settings in {path}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    return _Reader(context, path).read(document)


class _Reader:
    """Turns a document into defaults."""

    def __init__(self, context: Any, path: Path) -> None:  # noqa: ANN401 - see Command
        self._root = context
        self._path = path
        self._folder = path.absolute().parent
        self._tables: dict[tuple[CommandPath, str], str] = {}

    def read(self, document: dict[str, Any]) -> SettingsFile:
        shared = document.pop(BROKER_TABLE, {})
        defaults = self._command((), self._root.command, document)
        for path, command in commands(self._root.command):
            if takes_broker(command):
                options = {flag: option for flag, option in settable(command).items() if flag in BROKER_FLAGS}
                table = defaults
                for name in path:
                    table = table.setdefault(name, {})
                values = self._values(path, BROKER_TABLE, command, options, self._as_table(BROKER_TABLE, shared))
                for name, value in values.items():
                    table.setdefault(name, value)
        return SettingsFile(self._path, defaults, self._tables)

    def _command(self, path: CommandPath, command: Command, table: dict[str, Any]) -> dict[str, Any]:
        inner = getattr(command, "commands", {})
        own = {key: value for key, value in table.items() if key not in inner or not isinstance(value, dict)}
        defaults = self._values(path, ".".join(path), command, settable(command), own, extra=(*inner, BROKER_TABLE))
        for key, value in table.items():
            if key not in own:
                defaults[key] = self._command((*path, key), inner[key], value)
        return defaults

    def _values(
        self,
        path: CommandPath,
        table: str,
        command: Command,
        options: Mapping[str, Any],
        values: dict[str, Any],
        *,
        extra: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        context = type(self._root)(command, info_name=path[-1]) if path else self._root
        found = {}
        for key, value in values.items():
            flag = key.replace("_", "-")
            if flag not in options:
                raise SettingsError(self._unknown(table, key, [*options, *extra]))
            option = options[flag]
            found[option.name] = self._checked(context, option, _where(table, key), value)
            self._tables.setdefault((path, flag), table)
        return found

    def _as_table(self, name: str, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise SettingsError(f"{self._path}: {name} is a table: [{name}]")
        return value

    def _unknown(self, table: str, key: str, known: list[str]) -> str:
        where = f"{self._path}: {_where(table, key)}"
        if key == "password":
            return f"{where}: no secrets here: name a file with password_file, or set {PASSWORD}"
        names = [name.replace("-", "_") for name in known]
        near = get_close_matches(key.replace("-", "_"), names, n=3)
        return f"{where} is no setting" + (f"; did you mean {' or '.join(near)}?" if near else "")

    def _checked(self, context: Any, option: Any, where: str, value: object) -> object:  # noqa: ANN401 - see Command
        """As on the command line: words."""
        several = option.multiple
        if isinstance(value, list) != several or isinstance(value, dict):
            raise SettingsError(f"{self._path}: {where} is {'a list' if several else 'one value'}, not {value!r:.60}")
        words = []
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, list | dict):
                raise SettingsError(f"{self._path}: {where} is a list of single values, not of {one!r:.60}")
            if isinstance(one, bool) != bool(option.is_flag):
                raise SettingsError(f"{self._path}: {where} is {'' if option.is_flag else 'not '}true or false")
            words.append(one if isinstance(one, bool) else str(one))
        given = words if several else words[0]
        try:
            taken = option.process_value(context, given)
        except typer.BadParameter as error:
            raise SettingsError(f"{self._path}: {where}: {error.message}") from error
        if several:
            return [self._placed(one, word) for one, word in zip(taken, words, strict=True)]
        return self._placed(taken, given)

    def _placed(self, taken: object, word: object) -> object:
        return str(self._folder / taken) if isinstance(taken, Path) else word


def _where(table: str, key: str) -> str:
    return f"[{table}] {key}" if table else key


def settings_of(context: Any, path: CommandPath) -> list[Setting]:  # noqa: ANN401
    """Every setting of a command as it would run now.

    Args:
        context: of the root command.
        path: of the command; ``()`` for the root itself.

    Raises:
        SettingsError: there is no such command.
    """
    inner = context
    for depth, name in enumerate(path):
        command = getattr(inner.command, "commands", {}).get(name)
        if command is None:
            raise SettingsError(f"there is no command {' '.join(path[: depth + 1])!r}")
        inner = type(context)(command, info_name=name, parent=inner)
    file: SettingsFile | None = context.meta.get(SettingsFile.__name__)
    return [_setting(inner, path, flag, option, file) for flag, option in settable(inner.command).items()]


def _setting(context: Any, path: CommandPath, flag: str, option: Any, file: SettingsFile | None) -> Setting:  # noqa: ANN401
    if path:
        value, source = option.consume_value(context, {})
    else:
        value, source = context.params.get(option.name), context.get_parameter_source(option.name)
    problem = None
    if path and value is not None:
        try:
            value = option.process_value(context, value)
        except typer.BadParameter as error:
            problem = error.message
    table = file.tables.get((path, flag), "") if file is not None else ""
    origins = {
        "COMMANDLINE": "flag",
        "ENVIRONMENT": f"environment {option.envvar}",
        "DEFAULT_MAP": f"file {file.path if file else ''}" + (f" [{table}]" if table else ""),
    }
    return Setting(" ".join(path), flag, value, origins.get(source.name, "default"), option.envvar, problem)


def password_origin(password_file: Setting) -> Setting:
    """Where the broker's password comes from; the password itself is not read."""
    origin = "default"
    if password_file.origin != "flag" and os.environ.get(PASSWORD):
        origin = f"environment {PASSWORD}"
    elif password_file.value is not None:
        origin = f"file {password_file.value}"
    value = None if origin == "default" else "(set, not shown)"
    return Setting(password_file.command, "password", value, origin, PASSWORD)
