"""The server of ``/metrics``: whoever opens connections and says nothing takes no room from those who scrape."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import socketserver
import struct
import threading
import urllib.request
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, Gauge

from gateway import exposition
from gateway.exposition import MAX_SCRAPES, SCRAPE_TIMEOUT_S, serving_metrics


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    Gauge("here", "Always.", registry=registry).set(1)
    return registry


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


async def test_silent_connections_are_bounded_and_end(registry, monkeypatch):
    assert exposition._Quiet.timeout == SCRAPE_TIMEOUT_S
    monkeypatch.setattr(exposition._Quiet, "timeout", 4.0)
    threads = threading.active_count()
    async with serving_metrics(registry, "127.0.0.1", 0) as port:
        with contextlib.ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
                for _ in range(MAX_SCRAPES + 8)
            ]
            silent[-1].settimeout(2)
            assert await asyncio.to_thread(silent[-1].recv, 1) == b"", "there is no room for it"
            assert threading.active_count() <= threads + MAX_SCRAPES + 2
            assert [await asyncio.to_thread(one.recv, 1) for one in silent] == [b""] * len(silent)
            assert "here 1.0" in await asyncio.to_thread(scrape, port)


async def test_a_connection_without_a_thread_takes_no_room_for_good(registry, monkeypatch):
    def none(*_, **__):
        raise RuntimeError("can't start new thread")

    async with serving_metrics(registry, "127.0.0.1", 0) as port:
        with monkeypatch.context() as full:
            full.setattr(socketserver, "threading", SimpleNamespace(Thread=none))
            for _ in range(MAX_SCRAPES + 1):
                with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
                    assert await asyncio.to_thread(one.recv, 1) == b""
        assert "here 1.0" in await asyncio.to_thread(scrape, port)


async def test_one_that_goes_away_in_mid_request_is_no_trouble(registry, capfd):
    async with serving_metrics(registry, "127.0.0.1", 0) as port:
        for _ in range(2 * MAX_SCRAPES):
            with socket.create_connection(("127.0.0.1", port)) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
                one.sendall(b"GET /metrics HT")
                await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(OSError):
                    assert "here 1.0" in await asyncio.to_thread(scrape, port)
                    break
    assert capfd.readouterr().err == ""
