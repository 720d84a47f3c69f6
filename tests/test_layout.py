"""The packages: whose names they are, what may import what, and that the examples in docstrings hold."""

import doctest
import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def run(code: str, cwd: Path) -> str:
    """What a fresh interpreter prints; nothing of this process or of the working folder is on its path."""
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_the_installed_names_are_ours(tmp_path):
    """``models`` and the others are common names: another distribution must not get in front of us."""
    names = ", ".join(PACKAGES)
    found = run(f"import {names}\nfor m in ({names}): print(m.__name__, m.__file__)", tmp_path).splitlines()
    assert [line.split(" ", 1) for line in found] == [[name, str(ROOT / name / "__init__.py")] for name in PACKAGES]


def test_no_other_distribution_has_these_names():
    owners = importlib.metadata.packages_distributions()
    for name in PACKAGES:
        assert set(owners.get(name, ["gammawear"])) == {"gammawear"}, name
    assert importlib.metadata.version("gammawear") == PROJECT["project"]["version"]


def test_every_package_with_code_is_shipped():
    tops = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert set(PACKAGES) <= tops
    assert tops - set(PACKAGES) <= {"benchmarks"}


def test_imports_point_one_way(tmp_path):
    code = (
        "import os, sys; from importlinter.cli import lint_imports; "
        f"os.chdir({str(ROOT)!r}); sys.exit(lint_imports(no_cache=True))"
    )
    assert "broken" in run(code, tmp_path), "it has counted: '3 kept, 0 broken'"


LEARNING = ("quantization.gamma", "quantization.gamma_image", "quantization.rivals", "quantization.rate")
"""What only models/ imports."""


@pytest.mark.parametrize("package", ["quantization", "protocol", "device_emulator"])
def test_a_device_needs_no_torch(package, tmp_path):
    modules = [
        info.name for info in pkgutil.walk_packages([str(ROOT / package)], f"{package}.") if info.name not in LEARNING
    ]
    assert modules
    heavy = ("torch", "river", "prometheus_client", "matplotlib", "models", "gateway", "gammawear")
    code = f"import sys, {', '.join(modules)}\nprint([name for name in {heavy} if name in sys.modules])"
    assert run(code, tmp_path).strip() == "[]"


DOCUMENTED = [
    *(info.name for p in ("quantization", "protocol") for info in pkgutil.iter_modules([str(ROOT / p)], f"{p}.")),
    "models.windows",
    "models.scores",
]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_doctests():
    counted = [doctest.testmod(importlib.import_module(name)).attempted for name in DOCUMENTED]
    assert sum(counted) > 30
