"""Completion in a real bash, with the script that ``--show-completion`` gives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from needed import need

PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def script() -> str:
    need(shutil.which("bash"), "bash")
    environment = {**os.environ, "_GAMMAWEAR_COMPLETE": "source_bash", "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    return subprocess.run(["gammawear"], env=environment, capture_output=True, text=True, check=True).stdout


def completed(script: str, *words: str, folder: Path) -> list[str]:
    """What bash offers for the last of these words."""
    command = (
        f"{script}\nCOMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}\n"
        "line=$(complete -p gammawear); function=${line##*-F }; ${function%% *} gammawear\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", command], env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("device", "--bundle", "wrist6"), {"wrist6", "wrist6@1", "wrist6@2"}),
        (("device", "--bundle", "mi"), {"mine", "mine@1"}),
        (("camera", "--bundle", "st"), {"street", "street@1"}),
        (("bundles", "show", "bc"), {"bccd", "bccd@1"}),
        (("device", "--part", "bmi27"), {"bmi270"}),
        (("datasets", "fetch", "sp_"), {"sp_sw_har", "sp_sw_har_phone"}),
        (("doc",), {"doctor"}),
        (("gateway", "--metrics-"), {"--metrics-port", "--metrics-address"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bash(script: str, tmp_path: Path, words: tuple[str, ...], offered: set[str]) -> None:
    own = tmp_path / "runs" / "mine@1"
    own.mkdir(parents=True)
    (own / "manifest.json").write_text("{}")
    assert set(completed(script, "gammawear", *words, folder=tmp_path)) == offered
