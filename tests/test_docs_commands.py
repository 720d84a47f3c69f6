"""Every command that README.md and docs/ show is one that there is: programs, options, variables, targets, files.

What of them is run, and by which test, is in ``documented.py``.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from documented import COMMANDS, NOT_RUN, PAGES, ROOT, RUN_BY, RUN_HERE, Documented, documented
from typer.exceptions import TyperException

from gammawear.cli import command_line
from gammawear.settings import variables

LINES = sorted({command.line for command in COMMANDS})
ASSIGNED = re.compile(r"(?:^|\s)([A-Z_]+)=")
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
PARAMETERS = set(re.findall(r"^([A-Z_]+) \?=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
HERE = [line for lines in RUN_HERE.values() for line in lines]
FOLDERS = (ROOT, ROOT / "deploy", ROOT / "deploy" / "mosquitto")
"""Where pages say that a command is to be typed."""
OTHERS = (
    "../shared/", ".venv/", "accounts", "certificates/", "data/", "local/", "my-frames/", "my-pictures/",
    "my-recordings/", "own/", "gammawear/v1/",
)  # fmt: skip
"""How the paths begin that readers have, or that a command before has made, and topics."""
SUFFIXES = {".conf", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
"""Of what is in the repository; other names without a folder are the readers'."""


class ParsedError(Exception):
    """The options of a benchmark were taken; it is not to begin."""


def simple(line: str) -> list[list[str]]:
    """The commands that a line consists of, as words, without variables before them and redirections after."""
    commands = []
    for part in line.split(" && "):
        words = shlex.split(re.sub(r"\d?>>? ?\S+", "", part).replace("$(", "(").replace("(", " ").replace(")", " "))
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[2:] if words[0].endswith("PASSWORD=cat") else words[1:]
        commands.append(words)
    return commands


def parse_gammawear(words: list[str]) -> None:
    """Read a command's options as the command line does, without running it."""
    command: Any = command_line()
    context = command.make_context("gammawear", words)
    while rest := [*context._protected_args, *context.args] if hasattr(command, "commands") else []:
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def parse_benchmark(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a benchmark's options as it does, and stop there."""
    real = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *arguments: Any) -> None:
        real(self, *arguments)
        raise ParsedError

    monkeypatch.syspath_prepend(str(ROOT))
    loaded = importlib.import_module(module)
    if "argparse" not in vars(loaded):
        assert (words, callable(loaded.main)) == ([], True)
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [module, *words])
    if words == ["--help"]:
        with pytest.raises(SystemExit) as end:
            loaded.main()
        assert end.value.code == 0
        return
    with pytest.raises(ParsedError):
        loaded.main()


def parse_make(words: list[str]) -> None:
    """A target and its parameters; ``ARGS`` of the demo are options of ``gammawear demo``."""
    target, *assignments = words
    assert target in TARGETS
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        assert name in PARAMETERS
        if (target, name) == ("demo", "ARGS"):
            parse_gammawear(["demo", *shlex.split(value)])


def check(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether all that a line names is there."""
    ours = {name for name in ASSIGNED.findall(line) if name.startswith("GAMMAWEAR_")}
    assert ours <= variables(command_line())
    for words in simple(line):
        match words:
            case ["gammawear" | ".venv/bin/gammawear", *rest]:
                parse_gammawear(rest)
            case ["python", "-m", module, *rest]:
                parse_benchmark(module, rest, monkeypatch)
            case ["make", *rest]:
                parse_make(rest)
            case ["pip" | "/opt/gammawear/bin/pip", *rest]:
                project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
                for extra in re.findall(r"\.\[(\w+)\]", " ".join(rest)):
                    assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
        assert [name for name in files(words) if not found(name)] == []


def files(words: list[str]) -> list[str]:
    """What a command names that ought to be in the repository."""
    named = [part for word in words for part in word.split("=")[-1].split(",")]
    return [
        name
        for name in named
        if ("/" in name or Path(name).suffix in SUFFIXES) and not name.startswith(("/", "~", "$", *OTHERS))
        if ":" not in name and " " not in name
    ]


def found(name: str) -> bool:
    return any(list(folder.glob(name.rstrip("/").removeprefix("./"))) for folder in FOLDERS)


@pytest.mark.parametrize("line", LINES)
def test_all_that_a_command_names_is_there(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(line, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [
        "gammawear gatewy",
        "gammawear gateway --pages 1",
        "gammawear train har --rate 50",
        "gammawear camera --fps many",
        "GAMMAWEAR_HOST=here gammawear gateway",
        "export GAMMAWEAR_BROKER=here GAMMAWEAR_HOST=here",
        "python -m benchmarks.lossless --no-such",
        "python -m benchmarks.nothing",
        "make demos",
        'make demo ARG="--seconds 2"',
        'make demo ARGS="--second 2"',
        "pip install '.[blue]'",
        "promtool test rules deploy/prometheus/test/*.yml",
        "cp deploy/systemd/gammawear-gate* /etc && ./make-certificate.sh",
    ],
)
def test_what_is_not_there_is_found(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Typer's, argparse's, the import's, ours: whichever reader it is.
    with pytest.raises((TyperException, SystemExit, ModuleNotFoundError, AssertionError)):
        check(line, monkeypatch)


def kinds(line: str) -> list[str]:
    """The entries of the tables that are about a command, exact ones first."""
    patterns = [*HERE, *RUN_BY, *NOT_RUN]
    if line in patterns:
        return [pattern for pattern in patterns if pattern == line]
    return [pattern for pattern in patterns if fnmatch.fnmatchcase(line, pattern.replace("[", "[[]"))]


@pytest.mark.parametrize("line", LINES)
def test_every_command_is_run_or_it_is_said_why_not(line: str) -> None:
    assert len(kinds(line)) == 1, f"documented.py has no entry, or several, for: {line}"


def test_the_tables_are_about_commands_that_there_are() -> None:
    assert {kind for line in LINES for kind in kinds(line)} == {*HERE, *RUN_BY, *NOT_RUN}


@pytest.mark.parametrize(
    "test", sorted({*RUN_BY.values(), *(f"test_docs_commands_run.py::{name}" for name in RUN_HERE)})
)
def test_what_runs_a_command_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    if file == ".ci/run":
        assert re.search(rf"^{name}\b", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    else:
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE)


def test_commands_are_found_as_they_are_typed() -> None:
    page = "```console\n$ one --a     # what it does\n# two \\\n    --b 'c # d'\n```\n\n```bash\n$ three\n```\n"
    assert documented(page, "p") == [Documented("p", "one --a"), Documented("p", "two --b 'c")]
    assert {command.page for command in COMMANDS} <= {page.relative_to(ROOT).as_posix() for page in PAGES}
