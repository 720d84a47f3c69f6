"""What ``gammawear doctor`` looks at on the machine itself: installation, settings, clock, space, ports, bundles."""

from __future__ import annotations

import ctypes
import errno
import http.client
import importlib.util
import os
import platform
import shutil
import socket
import stat
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from quantization.errors import BundleError

Level = Literal["ok", "warning", "problem"]

EXTRAS: Final[dict[str, tuple[str, ...]]] = {
    "gateway": ("torch", "river", "prometheus_client", "PIL", "starlette", "uvicorn"),
    "camera": ("rawpy", "PIL"),
    "ble": ("bleak", "bleak_retry_connector", "bumble"),
    "train": ("matplotlib", "pycocotools", "sklearn"),
    "onnx": ("onnx", "onnxscript"),
    "demo": ("amqtt",),
}
"""Modules of each extra that tell whether it is installed."""

ASK_S: Final = 2.0
"""For an answer of whoever has a port of ours."""
MAX_ANSWER_BYTES: Final = 2**18
LEAST_BYTES: Final = 500 * 2**20
"""Free memory and disk: a gateway with PyTorch takes about 400 MB; a download of a data set up to 300 MB."""
SYNCHRONISED_US: Final = 16_000_000
"""The kernel lets the possible error of a clock that nobody corrects grow to this."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        level: ``problem`` if something will fail.
        check: what was looked at, one word.
        text: what was found.
        remedy: what to do; empty with ``ok``.
    """

    level: Level
    check: str
    text: str
    remedy: str = ""


def check_python() -> Finding:
    """The interpreter and the extras."""
    missing = {
        extra: [module for module in modules if importlib.util.find_spec(module) is None]
        for extra, modules in EXTRAS.items()
    }
    there = ", ".join(extra for extra, absent in missing.items() if not absent) or "none"
    absent = ", ".join(f"{extra} ({', '.join(modules)})" for extra, modules in missing.items() if modules)
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}; extras: {there}"
    if absent:
        text += f"; not installed: {absent}"
    if missing["gateway"]:
        return Finding("warning", "python", text, "to recognise here: pip install 'gammawear[gateway]'")
    return Finding("ok", "python", text)


def check_torch() -> Finding:
    """PyTorch's build."""
    if importlib.util.find_spec("torch") is None:
        return Finding("warning", "torch", "not installed", "gateways need it: pip install 'gammawear[gateway]'")
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("problem", "torch", f"cannot be loaded: {error}", "install it anew")
    return torch_build(torch.__version__, torch.version.cuda)


def torch_build(version: str, cuda: str | None) -> Finding:
    """What to say of a build: ``cuda`` is its version of CUDA, if it has any."""
    if cuda is None:
        return Finding("ok", "torch", f"{version}, without CUDA")
    return Finding(
        "warning",
        "torch",
        f"{version} is built for CUDA {cuda}: gigabytes on the disk that nothing here uses",
        "install PyTorch's CPU build (README)",
    )


def check_settings(wrong: Iterable[str], unknown: Iterable[str], secrets: Iterable[Path]) -> Iterator[Finding]:
    """Values that are refused, variables that nobody reads, and secrets that others can read.

    Args:
        wrong: of each setting that its command would refuse, a sentence.
        unknown: names in the environment.
        secrets: files that settings name.
    """
    for sentence in wrong:
        yield Finding("problem", "settings", sentence, "gammawear settings says where each comes from")
    strangers = ", ".join(unknown)
    if strangers:
        yield Finding("warning", "settings", f"no settings: {strangers}", "gammawear settings --json lists the names")
    else:
        yield Finding("ok", "settings", "every GAMMAWEAR_ variable is one that is read")
    for path in secrets:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            yield Finding("problem", "settings", f"{path}: {error.strerror}", "create it, or name another")
            continue
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield Finding("warning", "settings", f"others can read {path}", f"chmod 600 {path}")


def check_clock() -> Finding:
    """Whether something keeps the clock right; how far it is from the broker's nobody can tell."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "adjtimex"):
        return Finding("ok", "clock", f"not checked on {platform.system()}")
    timex = (ctypes.c_long * 64)()  # struct timex, all zero: only read; the fourth word is maxerror in µs
    if libc.adjtimex(timex) < 0:
        return Finding("ok", "clock", f"not checked: {os.strerror(ctypes.get_errno())}")
    if timex[3] >= SYNCHRONISED_US:
        remedy = "timedatectl set-ntp true, or install chrony; in a container it is the host's to do"
        return Finding("warning", "clock", "nothing keeps it right: latencies and ages will be wrong", remedy)
    return Finding("ok", "clock", f"synchronised, within {timex[3] / 1000:.0f} ms")


def check_space(folder: Path) -> Iterator[Finding]:
    """Free disk under a folder, and free memory where the kernel says."""
    disk = shutil.disk_usage(folder).free
    if disk < LEAST_BYTES:
        yield Finding("warning", "space", f"{disk / 2**20:.0f} MiB free on the disk", "make room")
    memory = _available_memory()
    if memory is not None and memory < LEAST_BYTES:
        yield Finding("warning", "space", f"{memory / 2**20:.0f} MiB of memory free", "a gateway takes about 400 MB")
    if disk >= LEAST_BYTES and (memory is None or memory >= LEAST_BYTES):
        free = f", {memory / 2**30:.1f} GiB of memory" if memory is not None else ""
        yield Finding("ok", "space", f"{disk / 2**30:.1f} GiB of disk{free} free")


def _available_memory() -> int | None:
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            found = dict(line.split(":", 1) for line in file if ":" in line)
        return 1024 * int(found["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None


# -- ports ------------------------------------------------------------------------------------------------------------


def check_ports(ports: Mapping[tuple[str, int], list[str]]) -> Iterator[Finding]:
    """Whether what we would serve could be served.

    Args:
        ports: address and port, and the settings that say so.
    """
    for (address, port), names in ports.items():
        where, wanted = f"{address}:{port}", ", ".join(names)
        if port == 0:
            yield Finding("ok", "port", f"any free one for {wanted}")
            continue
        refused = _refusal(address, port)
        if refused is None:
            yield Finding("ok", "port", f"{where} is free for {wanted}")
        elif refused.errno == errno.EADDRINUSE and served_by_us(address, port):
            yield Finding("ok", "port", f"{where} ({wanted}) is served by a gammawear that runs already")
        elif refused.errno == errno.EADDRINUSE:
            remedy = f"ss -ltnp 'sport = :{port}' says who; or set another: {wanted}"
            yield Finding("problem", "port", f"{where} ({wanted}) is taken by another program", remedy)
        else:
            text = f"{where} ({wanted}) cannot be served: {refused.strerror}"
            yield Finding("problem", "port", text, f"set another: {wanted}")


def _refusal(address: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections just closed do not count
            probe.bind((address, port))
            probe.listen()
    except socket.gaierror as error:
        return OSError(errno.EADDRNOTAVAIL, error.strerror)
    except OSError as error:
        return error
    return None


def served_by_us(address: str, port: int) -> bool:
    """Whether metrics or a page of ours are there."""
    return any(b"gammawear" in _answer(address, port, path) for path in ("/metrics", "/"))


def is_connected(address: str, port: int) -> bool:
    """Whether metrics are there of a gateway or bridge of ours that has its connection to the broker."""
    lines = _answer(address, port, "/metrics").splitlines()
    return bool({b"gammawear_broker_connected 1.0", b"gammawear_bridge_broker_up 1.0"} & set(lines))


def _answer(address: str, port: int, path: str) -> bytes:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - not to listen on
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=ASK_S) as answer:
            return bytes(answer.read(MAX_ANSWER_BYTES))
    except (OSError, ValueError, http.client.HTTPException):  # urllib's errors are OSErrors
        return b""


# -- bundles ----------------------------------------------------------------------------------------------------------


def check_bundles(folders: Iterable[Path]) -> Iterator[Finding]:
    """Whether every bundle in some folders, and those that ship, can be served: files, digests, network."""
    if importlib.util.find_spec("torch") is None:
        yield Finding("warning", "bundles", "not checked without PyTorch", "pip install 'gammawear[gateway]'")
        return
    from models.bundle import SHIPPED, load_bundle
    from models.bundle_files import DETECTOR, bundle_folders
    from models.vision.bundle import SHIPPED as SHIPPED_DETECTORS
    from models.vision.bundle import load_detector

    good = []
    for root in dict.fromkeys((*folders, SHIPPED, SHIPPED_DETECTORS)):
        try:
            if not root.is_dir():
                yield Finding("warning", "bundles", f"there is no folder {root}", "create it, or set another")
            activities, detectors = bundle_folders(root), bundle_folders(root, DETECTOR)
        except OSError as error:
            yield Finding("problem", "bundles", f"{root} cannot be listed: {error.strerror}", "check its permissions")
            continue
        for folder in (*activities, *detectors):
            try:
                found = load_detector(folder) if folder in detectors else load_bundle(folder)
            except BundleError as error:
                remedy = "copy or train it again; a gateway goes on without it"
                yield Finding("problem", "bundles", str(error), remedy)
            else:
                good.append(found.reference)
    yield Finding("ok", "bundles", f"{len(good)} load, their digests are right: {', '.join(good)}")
