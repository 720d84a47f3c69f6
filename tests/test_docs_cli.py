"""What docs say of the command line is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_gammawear_cli import Run, run

from gammawear.cli import command_line
from gammawear.settings import commands, settable, variables

__all__ = ["run"]

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
TEXT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"GAMMAWEAR_[A-Z_]*[A-Z]", page.read_text(encoding="utf-8")))
    assert named <= variables(command_line())


def test_every_flag_that_is_named_exists() -> None:
    known = {name for _, command in commands(command_line()) for option in command.params for name in option.opts}
    known |= {
        name for _, command in commands(command_line()) for option in command.params for name in option.secondary_opts
    }
    assert set(re.findall(r"--[a-z][a-z-]+", TEXT)) <= known | {"--help"}


def test_the_example_of_a_file_is_read(run: Run, tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert example is not None
    (tmp_path / "example.toml").write_text(example[1], encoding="utf-8")
    status, out, err = run("--config", "example.toml", "--log-format", "text", "settings")
    assert (status, err) == (0, "")
    for value in ("broker.example", "8883", str(tmp_path / "secrets" / "gateway"), "0.0.0.0", "60"):  # noqa: S104
        assert value in out


def test_every_command_with_json_is_listed() -> None:
    table = TEXT[TEXT.index("| command | `--json` gives |") :].partition("\n\n")[0]
    for path, command in commands(command_line()):
        if "json" in settable(command):
            assert f"`{' '.join(path)}`" in table
