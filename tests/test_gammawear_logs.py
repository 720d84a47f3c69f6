"""Standard error as JSON lines."""

from __future__ import annotations

import json
import logging
import re

import pytest
from test_gammawear_cli import Run, run

from gammawear.logs import JsonFormatter
from gateway.refusals import Refusals
from quantization.errors import PacketError

__all__ = ["run"]


def test_every_line_is_an_object(run: Run) -> None:
    status, _, err = run("--log-format", "json", "device", "--port", "1", "--seconds", "3")
    assert status == 0
    lines = [json.loads(line) for line in err.splitlines()]
    assert {line["level"] for line in lines} == {"info", "warning"}
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    refused = next(line for line in lines if line["logger"] == "protocol.connection")
    assert "127.0.0.1:1" in refused["message"]
    assert refused["client"] == "gammawear-wearable-01"
    assert any("packets made" in line["message"] for line in lines)


def test_an_error_is_an_object_too(run: Run) -> None:
    status, out, err = run("--log-format", "json", "device", "--bundle", "nope")
    assert (status, out) == (1, "")
    line = json.loads(err)
    assert (line["level"], line["error"]) == ("error", "BundleError")
    assert line["message"].startswith("no bundle 'nope'")


@pytest.mark.parametrize(
    ("arguments", "level"),
    [((), "WARNING"), (("-v",), "INFO"), (("--log-level", "debug"), "DEBUG"), (("--log-level", "error"), "ERROR")],
)
def test_levels(run: Run, arguments: tuple[str, ...], level: str) -> None:
    assert run(*arguments, "datasets")[0] == 0
    assert logging.getLogger().level == getattr(logging, level)


def test_names_of_fields_from_the_network_stay_in_their_field(caplog: pytest.LogCaptureFixture) -> None:
    Refusals().refuse("imu", "w1", PacketError("checksum", 'odd\n{"level": "error"}'))
    line = json.loads(JsonFormatter().format(caplog.records[0]))
    assert (line["device"], line["kind"], line["reason"], line["level"]) == ("w1", "imu", "checksum", "warning")
    assert "\n" not in JsonFormatter().format(caplog.records[0])


def test_an_exception_is_in_the_line(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("x").exception("it broke")
    line = json.loads(JsonFormatter().format(caplog.records[0]))
    assert (line["level"], line["message"]) == ("error", "it broke")
    assert "ValueError: no" in line["exception"]
