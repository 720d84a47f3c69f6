"""``deploy/kubernetes``: against the schemas, against each other, against ``compose.yaml``. No cluster has run it."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from deployed import DEPLOY, ROOT, compose

SHIPPED = DEPLOY / "kubernetes"
VERSIONS = ("1.29", "1.33")
DOCUMENTS: list[dict[str, Any]] = [
    document
    for path in sorted(SHIPPED.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
NAMES = [f"{one['kind']}-{one['metadata']['name']}" for one in DOCUMENTS]
WORKLOADS = [one for one in DOCUMENTS if one["kind"] in ("Deployment", "StatefulSet")]
DEPLOYMENT_PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def the(kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in DOCUMENTS if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_they_follow_the_schemas(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_find_mistakes() -> None:
    wrong = copy.deepcopy(the("Deployment", "gateway"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readyProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda one: one["metadata"]["name"])
def test_pods_are_confined(workload: dict[str, Any]) -> None:
    """As the namespace demands (Pod Security Standards, restricted), and a read-only root besides."""
    spec = pod(workload)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]
    assert {"readinessProbe", "livenessProbe"} <= set(container)
    assert re.search(r":v?\d+\.\d+", container["image"])
    volumes = {one["name"] for one in [*spec["volumes"], *_claims(workload)]}
    assert {one["name"] for one in container["volumeMounts"]} == volumes


def _claims(workload: dict[str, Any]) -> list[dict[str, Any]]:
    return [one["metadata"] for one in workload["spec"].get("volumeClaimTemplates", ())]


def test_one_gateway_at_a_time() -> None:
    spec = the("Deployment", "gateway")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert the("StatefulSet", "mosquitto")["spec"]["replicas"] == 1


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda one: one["metadata"]["name"])
def test_services_policies_and_pods_mean_each_other(workload: dict[str, Any]) -> None:
    name = workload["metadata"]["name"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    selector = workload["spec"]["selector"]["matchLabels"]
    assert selector.items() <= labels.items()
    ports = {one["name"]: one["containerPort"] for one in pod(workload)["containers"][0]["ports"]}
    service = the("Service", name)["spec"]
    assert service["selector"] == selector
    assert {one["targetPort"]: one["port"] for one in service["ports"]} == ports
    policy = the("NetworkPolicy", name)["spec"]
    assert policy["podSelector"]["matchLabels"] == selector
    assert {one["port"] for rule in policy["ingress"] for one in rule["ports"]} == set(ports.values())
    assert all(one["metadata"].get("namespace", one["metadata"]["name"]) == "gammawear" for one in DOCUMENTS)


def test_the_gateway_may_reach_the_broker_and_names() -> None:
    egress = the("NetworkPolicy", "gateway")["spec"]["egress"]
    assert [{one["port"] for one in rule["ports"]} for rule in egress] == [{8883}, {53}]
    broker = the("StatefulSet", "mosquitto")["spec"]["selector"]["matchLabels"]
    assert egress[0]["to"] == [{"podSelector": {"matchLabels": broker}}]
    assert the("NetworkPolicy", "default-deny")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_metrics_are_where_prometheus_is_told() -> None:
    template = the("Deployment", "gateway")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(container["ports"][0]["containerPort"])


# -- the same as compose.yaml, which is run ---------------------------------------------------------------------------


def test_commands_and_environment_are_those_of_compose() -> None:
    services = compose()["services"]
    (gateway,) = pod(the("Deployment", "gateway"))["containers"]
    on_one_machine = ("--bundles=", "--page-")
    assert gateway["args"] == [one for one in services["gateway"]["command"] if not one.startswith(on_one_machine)]
    given = {one["name"]: one["value"] for one in gateway["env"]}
    there = services["gateway"]["environment"]
    assert {key: Path(value).name for key, value in given.items()} == {
        key: Path(value).name for key, value in there.items()
    }
    assert the("Service", given["GAMMAWEAR_BROKER"])["spec"]["ports"][0]["port"] == int(given["GAMMAWEAR_PORT"])
    (mosquitto,) = pod(the("StatefulSet", "mosquitto"))["containers"]
    assert (
        mosquitto["command"] + mosquitto["args"]
        == services["mosquitto"]["entrypoint"] + services["mosquitto"]["command"]
    )
    assert mosquitto["image"] == services["mosquitto"]["image"]
    check = [part.replace("$$", "$") for part in services["mosquitto"]["healthcheck"]["test"][1:]]
    assert mosquitto["readinessProbe"]["exec"]["command"] == check


def test_mosquitto_finds_its_files_where_compose_puts_them() -> None:
    service = compose()["services"]["mosquitto"]
    mounted = [line.split(":")[1] for line in service["volumes"]] + [one["target"] for one in service["secrets"]]
    spec = pod(the("StatefulSet", "mosquitto"))
    sources = spec["volumes"][0]["projected"]["sources"]
    projected = [f"/etc/mosquitto/{item['path']}" for one in sources for item in next(iter(one.values()))["items"]]
    assert {*projected, "/var/lib/mosquitto"} == set(mounted)


def made_by_the_page() -> dict[tuple[str, str], dict[str, str]]:
    """Kind and name to keys and files, of each ``kubectl create`` in docs/deployment.md."""
    made = {}
    for line in re.findall(r"^\$ kubectl .* create (.*)$", DEPLOYMENT_PAGE, re.MULTILINE):
        words = [word for word in shlex.split(line) if word != "generic"]
        files = [word.removeprefix("--from-file=").split("=") for word in words if word.startswith("--from-file=")]
        made[words[0], words[1]] = dict(files)
    return made


def test_the_page_makes_what_the_manifests_refer_to() -> None:
    made = made_by_the_page()
    assert set(made) == {("configmap", "mosquitto"), ("secret", "mosquitto"), ("secret", "gateway")}
    config, secret = pod(the("StatefulSet", "mosquitto"))["volumes"][0]["projected"]["sources"]
    for kind, source in (("configmap", config["configMap"]), ("secret", secret["secret"])):
        assert {item["key"] for item in source["items"]} == set(made[kind, source["name"]])
    gateway = pod(the("Deployment", "gateway"))
    assert gateway["volumes"][0]["secret"]["secretName"] == "gateway"
    files = {Path(one["value"]).name for one in gateway["containers"][0]["env"] if one["name"].endswith("_FILE")}
    assert files == set(made["secret", "gateway"])
    # What compose mounts there, except that the name in the certificate's folder is the script's.
    mounts = {line.split(":")[1]: line.split(":")[0] for line in compose()["services"]["mosquitto"]["volumes"]}
    for item in config["configMap"]["items"]:
        shipped = made["configmap", "mosquitto"][item["key"]]
        assert mounts[f"/etc/mosquitto/{item['path']}"] == f"./{shipped}"
