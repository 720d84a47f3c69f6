"""An interpreter that sees what one installs by an extra of ours, and nothing else of this environment.

The distributions are those that pip would install: our extra out of ``pyproject.toml``, and of each what it requires.
They are linked into a folder, so that nothing is downloaded and a test takes a second instead of minutes.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def installed_by(*extras: str) -> set[str]:
    """Names of all distributions that ``pip install 'gammawear[EXTRAS]'`` installs, without ours."""
    found: set[str] = set()
    asked: set[tuple[str, str]] = set()
    waiting = [Requirement(f"gammawear[{','.join(extras)}]" if extras else "gammawear")]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        for extra in {"", *requirement.extras}:
            if (name, extra) in asked:
                continue
            asked.add((name, extra))
            waiting += [
                one for one in _required(name, extra) if one.marker is None or one.marker.evaluate({"extra": extra})
            ]
        found.add(name)
    return found - {"gammawear"}


def _required(name: str, extra: str) -> list[Requirement]:
    if name == "gammawear":
        lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    else:
        lines = importlib.metadata.requires(name) or []
    return [Requirement(line) for line in lines]


class Lean:
    """A folder with what these extras install, and with our packages.

    Args:
        folder: an empty one.
        extras: of ours.
    """

    def __init__(self, folder: Path, *extras: str) -> None:
        self.folder = folder
        for name in installed_by(*extras):
            distribution = importlib.metadata.distribution(name)
            for path in distribution.files or ():
                if path.parts[0] != ".." and not (folder / path.parts[0]).exists():
                    (folder / path.parts[0]).symlink_to(Path(str(distribution.locate_file(path.parts[0]))))
        for package in ("quantization", "protocol", "device_emulator", "models", "gateway", "gammawear"):
            (folder / package).symlink_to(ROOT / package)
        ours = folder / "gammawear-0.dist-info"
        ours.mkdir()
        (ours / "METADATA").write_text(f"Metadata-Version: 2.1\nName: gammawear\nVersion: {PROJECT['version']}\n")

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run this interpreter there, without site-packages of its own."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-S", "-P", *arguments], cwd=self.folder, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def gammawear(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command."""
        return self.python("-c", "import gammawear.cli; gammawear.cli.main()", *arguments)
