"""What ``deploy/compose.yaml`` starts, started without containers: the same commands, environment and files.

Each service gets a folder that stands for its container's root, with what is mounted there. Texts are changed in two
ways only: a container's path becomes one in that folder, and a port becomes a free one. :meth:`Composed.back` undoes
both, and every file is compared after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from needed import need
from stack import PATIENCE_S, until

from gammawear.broker import find_mosquitto, free_port

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PORTS = ("1883", "8883", "9090", "9464", "9465", "9466")
PROGRAMS: dict[str, Callable[[], str | None]] = {
    "mosquitto": find_mosquitto,
    "prometheus": lambda: shutil.which("prometheus"),
    "gammawear": lambda: shutil.which("gammawear", path=str(Path(sys.executable).parent)),
    "python": lambda: sys.executable,
    "mosquitto_sub": lambda: shutil.which("mosquitto_sub"),
}
IMAGES = {"prom/prometheus": ["prometheus"]}
"""Entrypoints of images that are not ours."""


def compose() -> dict[str, Any]:
    """The file, parsed."""
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def dockerfile_says(service: dict[str, Any], pattern: str) -> list[str]:
    """The JSON list that follows ``pattern`` in the Dockerfile of a service of ours."""
    text = (ROOT / service["build"]["dockerfile"]).read_text(encoding="utf-8")
    found: list[str] = json.loads(re.findall(pattern + r"\s*(\[.*\])$", text, re.MULTILINE)[-1])
    return found


class Process:
    """A service's process; its output goes to a file."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, log: Path, command: list[str], environment: dict[str, str]) -> Process:
        find = PROGRAMS[command[0]]
        need(program := find(), command[0])
        assert program is not None
        known = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                program,
                *command[1:],
                cwd=log.parent,
                env={**known, "HOME": str(log.parent), "COLUMNS": "300", **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        return cls(process, log)

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait for this in its output."""
        await until(lambda: self._process.returncode is not None or re.search(pattern, self.said))
        found = re.search(pattern, self.said)
        assert found, f"ended with {self._process.returncode}, and said:\n{self.said}"
        return found

    async def stop(self) -> int:
        """As a container engine and systemd do: SIGTERM. Gives the exit status."""
        assert self._process.returncode is None, self.said
        self._process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self._process.wait(), PATIENCE_S)

    async def end_anyhow(self) -> None:
        """What is left after a test that failed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class Composed:
    """The site.

    Args:
        folder: where everything is put.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.deploy = folder / "deploy"
        self.ports = {port: str(free_port()) for port in PORTS}
        self.file = compose()
        shutil.copytree(DEPLOY, self.deploy, ignore=shutil.ignore_patterns("local", ".env", "__pycache__"))
        need(shutil.which("mosquitto_passwd") and shutil.which("openssl"), "mosquitto_passwd and openssl")
        subprocess.run([self.deploy / "docker" / "prepare.sh"], check=True, capture_output=True)
        self._started: list[Process] = []

    def root_of(self, service: str) -> Path:
        """Stands for ``/`` in its container."""
        return self.folder / "containers" / service

    def mounts(self, service: str) -> dict[str, Path]:
        """Paths in the container, and what is there."""
        found = {}
        for line in self.file["services"][service].get("volumes", ()):
            source, target = line.split(":")[:2]
            if source.startswith("./"):
                found[target] = self.deploy / source
        for one in self.file["services"][service].get("secrets", ()):
            source, target = (one, one) if isinstance(one, str) else (one["source"], one["target"])
            at = target if target.startswith("/") else f"/run/secrets/{target}"
            found[at] = self.deploy / self.file["secrets"][source]["file"]
        return found

    def prepare(self, service: str) -> None:
        """Put what is mounted where the container would see it."""
        for target, source in self.mounts(service).items():
            here = self.root_of(service) / target[1:]
            here.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                here.symlink_to(source)
                continue
            text = source.read_text(encoding="utf-8")
            shutil.copy(source, here)  # with its mode
            here.write_text(self.here(service, text), encoding="utf-8")
            assert self.back(service, here.read_text(encoding="utf-8")) == text, "only paths and ports were changed"

    def here(self, service: str, text: str) -> str:
        """A text of a container, for this machine."""
        tops = {"/" + target.split("/")[1] for target in self.mounts(service)}
        for top in tops:
            text = re.sub(rf"(?<![\w/.]){top}(?![\w.-])", f"{self.root_of(service)}{top}", text)
        for inside, free in self.ports.items():
            text = re.sub(rf"\b{inside}\b", free, text)
        return text

    def back(self, service: str, text: str) -> str:
        """What :meth:`here` was given."""
        text = text.replace(str(self.root_of(service)), "")
        for inside, free in self.ports.items():
            text = re.sub(rf"\b{free}\b", inside, text)
        return text

    def command(self, name: str) -> list[str]:
        """Entrypoint and command."""
        service = self.file["services"][name]
        if "entrypoint" in service:
            entrypoint = service["entrypoint"]
        elif "build" in service:
            entrypoint = dockerfile_says(service, "^ENTRYPOINT")
        else:
            entrypoint = IMAGES[service["image"].split(":")[0]]
        whole = [self.here(name, part) for part in [*entrypoint, *service["command"]]]
        paths = [path for part in whole for path in re.findall(r"(?:^|=)(/.*)", part)]
        assert all(path.startswith(str(self.folder)) for path in paths), "nothing of this machine is touched"
        return whole

    def environment(self, name: str) -> dict[str, str]:
        """Its variables; the broker is on this machine."""
        given = self.file["services"][name].get("environment", {})
        there = {key: self.here(name, value) for key, value in given.items()}
        return {**there, "GAMMAWEAR_BROKER": "127.0.0.1"} if "GAMMAWEAR_BROKER" in there else there

    async def start(self, name: str, *more: str) -> Process:
        """Start a service, with more arguments."""
        return await self.run(name, [*self.command(name), *more], self.environment(name))

    async def run(self, name: str, command: list[str], environment: dict[str, str]) -> Process:
        """Start something else beside them."""
        folder = self.folder / "run" / name
        folder.mkdir(parents=True)
        self._started.append(await Process.start(folder / "log", command, environment))
        return self._started[-1]

    async def healthy(self, name: str) -> None:
        """Wait until the health check of a service passes."""
        async with asyncio.timeout(PATIENCE_S):
            while not await asyncio.to_thread(self._is_healthy, name):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.1)

    def _is_healthy(self, name: str) -> bool:
        service = self.file["services"][name]
        _, *check = (
            service["healthcheck"]["test"]
            if "healthcheck" in service
            else ["CMD", *dockerfile_says(service, r"HEALTHCHECK .*\\\n\s*CMD")]
        )
        command = [self.here(name, part.replace("$$", "$")) for part in check]
        if command[0] == "wget":
            return fetched(command[-1]) is not None
        command = [part.replace("/usr/local/lib/gammawear", str(DEPLOY / "docker")) for part in command]
        need(program := PROGRAMS[command[0]](), command[0])
        assert program is not None
        environment = {**os.environ, **self.environment(name)}
        done = subprocess.run(
            [program, *command[1:]], env=environment, capture_output=True, check=False, timeout=PATIENCE_S
        )
        return done.returncode == 0

    async def close(self) -> None:
        """Kill what still runs."""
        for process in reversed(self._started):
            await process.end_anyhow()


def fetched(url: str) -> str | None:
    """What is there, None if nothing."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310 - our own address
            text: str = answer.read().decode()
            return text
    except OSError:
        return None
