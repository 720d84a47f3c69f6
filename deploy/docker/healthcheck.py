#!/usr/bin/env python3
"""Whether the service in this container does its work; exit status 0 if so, else 1 and a sentence.

``healthcheck.py metrics PORT``: its metrics are served, and say that it has its broker.
``healthcheck.py broker``: there is a connection to the broker's port, GAMMAWEAR_PORT; for what serves no metrics. A
container has a network of its own, so the connection is the service's.
"""

from __future__ import annotations

import os
import re
import sys
import urllib.request
from pathlib import Path

CONNECTED = re.compile(r"^gammawear_(?:broker_connected|bridge_broker_up) 1(?:\.0)?$", re.MULTILINE)
ESTABLISHED = "01"
"""Of a socket's state in /proc/net/tcp (Linux, include/net/tcp_states.h)."""


def metrics_problem(port: int) -> str | None:
    """None if all is well."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=8) as answer:
            text = answer.read().decode()
    except OSError as error:
        return f"no metrics on port {port}: {error}"
    return None if CONNECTED.search(text) else "not connected to the broker"


def broker_problem(port: int, tables: tuple[Path, ...] = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))) -> str | None:
    """None if a connection to that port of any machine is established."""
    for table in tables:
        if not table.exists():  # a machine without IPv6
            continue
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            _, _, remote, state, *_ = line.split()
            if state == ESTABLISHED and int(remote.rpartition(":")[2], 16) == port:
                return None
    return f"no connection to a broker on port {port}"


def main(arguments: list[str]) -> str | int:
    """What to exit with."""
    match arguments:
        case ["metrics", port]:
            return metrics_problem(int(port)) or 0
        case ["broker"]:
            return broker_problem(int(os.environ.get("GAMMAWEAR_PORT", "1883"))) or 0
    return "healthcheck.py metrics PORT | broker"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
