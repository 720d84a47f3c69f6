"""Settings: a flag counts before the environment, that before the file, and that before the default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_gammawear_cli import Run, run

from gammawear.cli import command_line
from gammawear.options import broker_settings
from gammawear.settings import BROKER_FLAGS, commands, settable, variables

__all__ = ["run"]

FILE = """
log_level = "info"

[broker]
host = "broker.example"
port = 8883
password_file = "secrets/password"
mqtt = 5

[gateway]
metrics-port = 9470
per_device = true
bundles = ["mine", "/srv/bundles"]
port = 1884

[train.har]
epochs = 3
"""


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    path = folder / "gammawear.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def shown(run: Run, *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What ``settings --json`` says, by command and setting."""
    status, out, err = run(*arguments, "--json")
    assert status == 0, err
    return {(row["command"], row["name"]): row for row in json.loads(out)}


def test_precedence(run: Run, settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shown(run, "settings", "gateway")["gateway", "metrics-port"]
    assert (before["value"], before["origin"]) == (9464, "default")
    monkeypatch.setenv("GAMMAWEAR_CONFIG", str(settings_file))
    from_file = shown(run, "settings", "gateway")
    assert from_file["gateway", "metrics-port"]["value"] == 9470
    assert from_file["gateway", "metrics-port"]["origin"] == f"file {settings_file} [gateway]"
    assert from_file["gateway", "batch"]["origin"] == "default"
    monkeypatch.setenv("GAMMAWEAR_GATEWAY_METRICS_PORT", "9480")
    row = shown(run, "settings", "gateway")["gateway", "metrics-port"]
    assert (row["value"], row["origin"]) == (9480, "environment GAMMAWEAR_GATEWAY_METRICS_PORT")
    assert row["variable"] == "GAMMAWEAR_GATEWAY_METRICS_PORT"
    assert shown(run, "--log-level", "error", "settings")["", "log-level"]["origin"] == "flag"


def test_what_counts_is_what_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.toml").write_text("[device]\nbundle = 'from-file'", encoding="utf-8")
    device = ("--config", "own.toml", "device")
    assert run(*device)[2].startswith("error: no bundle 'from-file'")
    monkeypatch.setenv("GAMMAWEAR_DEVICE_BUNDLE", "from-environment")
    assert run(*device)[2].startswith("error: no bundle 'from-environment'")
    assert run(*device, "--bundle", "from-flag")[2].startswith("error: no bundle 'from-flag'")


def test_a_broker_is_the_same_for_all_commands_unless_they_say_otherwise(run: Run, settings_file: Path) -> None:
    found = shown(run, "--config", str(settings_file), "settings")
    assert found["device", "host"]["value"] == "broker.example"
    assert found["device", "port"] | {"problem": None} == {
        "command": "device", "name": "port", "value": 8883, "origin": f"file {settings_file} [broker]",
        "variable": "GAMMAWEAR_PORT", "problem": None,
    }  # fmt: skip
    assert found["gateway", "port"]["value"] == 1884
    assert found["gateway", "port"]["origin"] == f"file {settings_file} [gateway]"
    assert found["camera", "mqtt"]["value"] == "5"
    assert found["train har", "epochs"]["value"] == 3
    assert found["", "log-level"]["origin"] == f"file {settings_file}"
    assert ("demo", "host") not in found


def test_paths_are_relative_to_the_file(run: Run, settings_file: Path) -> None:
    found = shown(run, "--config", str(settings_file), "settings", "gateway")
    folder = settings_file.parent
    assert found["gateway", "password-file"]["value"] == str(folder / "secrets" / "password")
    assert found["gateway", "bundles"]["value"] == [str(folder / "mine"), "/srv/bundles"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[gateway]\nmetric_port = 1", r"[gateway] metric_port is no setting; did you mean metrics_port"),
        ("[gatway]\nport = 1", "gatway is no setting; did you mean gateway?"),
        ("[broker]\nhots = 'x'", "[broker] hots is no setting; did you mean host"),
        ("[broker]\npassword = 'x'", "[broker] password: no secrets here: name a file with password_file"),
        ("[gateway]\npassword = 'x'", "[gateway] password: no secrets here"),
        ("[gateway]\nmetrics_port = 70000", "[gateway] metrics_port: "),
        ("[gateway]\nmetrics_port = 'soon'", "[gateway] metrics_port: "),
        ("[gateway]\nmetrics_port = true", "[gateway] metrics_port is not true or false"),
        ("[gateway]\nper_device = 1", "[gateway] per_device is true or false"),
        ("[gateway]\nbundles = 'x'", "[gateway] bundles is a list, not 'x'"),
        ("[gateway]\nbundles = [['x']]", "[gateway] bundles is a list of single values, not of ['x']"),
        ("[gateway]\nclient_id = ['x']", "[gateway] client_id is one value, not ['x']"),
        ("[gateway.deep]\nx = 1", "[gateway] deep is no setting"),
        ("broker = 1", "broker is a table"),
        ("config = 'x'", "config is no setting"),
        ("version = true", "version is no setting"),
        ("log_level = 'loud'", "log_level: "),
        ("gateway = 1", "gateway is no setting"),
        ("[gateway", "is not TOML"),
        ("a = '\ud800'", "is not TOML"),
    ],
)
def test_a_file_that_is_wrong_is_an_error_that_names_the_key(
    run: Run, tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    status, out, err = run("--config", str(path), "bundles")
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {path}")
    assert sentence in err
    assert "Traceback" not in err


def test_no_file_is_read_unless_it_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "gammawear.toml").write_text("nonsense = 1", encoding="utf-8")
    assert run("datasets")[0] == 0
    status, _, err = run("--config", "absent.toml", "datasets")
    assert (status, err) == (1, "error: cannot read the settings in absent.toml: No such file or directory\n")


def test_a_password_is_not_shown_and_a_flag_counts_first(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("hunter2\n", encoding="utf-8")
    monkeypatch.setenv("GAMMAWEAR_PASSWORD_FILE", "password")
    row = shown(run, "settings", "device")["device", "password"]
    assert (row["value"], row["origin"]) == ("(set, not shown)", "file password")
    monkeypatch.setenv("GAMMAWEAR_PASSWORD", "hunter3")
    row = shown(run, "settings", "device")["device", "password"]
    assert (row["value"], row["origin"]) == ("(set, not shown)", "environment GAMMAWEAR_PASSWORD")
    for arguments in (("settings", "device"), ("settings", "device", "--json")):
        _, out, err = run(*arguments)
        assert "hunter" not in out + err
    # The environment's comes first, so that file is not looked for; a flag's comes before both.
    monkeypatch.setenv("GAMMAWEAR_PASSWORD_FILE", "absent")
    status, _, err = run("device")
    assert (status, "a password needs a username" in err) == (2, True)
    status, _, err = run("device", "--password-file", "elsewhere")
    assert (status, err) == (1, "error: cannot read the password: elsewhere: No such file or directory\n")


@pytest.mark.parametrize(("content", "sentence"), [(b"\n", "is to be the password"), (b"\xff\n", "is not UTF-8")])
def test_a_password_file_that_has_none(run: Run, tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "password").write_bytes(content)
    status, _, err = run("device", "--username", "w", "--password-file", "password")
    assert status == 1
    assert sentence in err


def test_a_misspelt_variable_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMMAWEAR_GATEWAY_METRIC_PORT", "1")
    assert "GAMMAWEAR_GATEWAY_METRIC_PORT is set in the environment, and is no setting" in run("settings")[2]


def test_a_variable_that_its_option_does_not_take_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMMAWEAR_GATEWAY_BATCH", "many")
    assert shown(run, "settings")["gateway", "batch"]["problem"]
    assert run("gateway")[0] == 2


def test_settings_of_a_command_that_is_not_there(run: Run) -> None:
    assert run("settings", "train", "cat")[:2] == (1, "")


def test_every_option_has_a_variable_of_its_own() -> None:
    root = command_line()
    named: dict[str, set[str]] = {}
    for _, command in commands(root):
        for flag, option in settable(command).items():
            named.setdefault(option.envvar, set()).add(flag)
    assert all(len(flags) == 1 for flags in named.values())
    assert {"GAMMAWEAR_BROKER", "GAMMAWEAR_PASSWORD", "GAMMAWEAR_CONFIG"} <= variables(root)
    assert {name.replace("_", "-") for name in broker_settings.__annotations__} - {"return", "password"} == BROKER_FLAGS
