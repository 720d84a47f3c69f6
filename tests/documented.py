"""The commands in blocks of README.md and docs/, and which of them is run by what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Documented:
    """One command.

    Attributes:
        page: where it stands, from the repository's root.
        line: what is typed, without the prompt and without the comment after it.
    """

    page: str
    line: str


def documented(text: str, page: str) -> list[Documented]:
    """What follows a prompt (``$``, or ``#`` for root) in a page's ``console`` blocks; a backslash continues a line."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            assert line.startswith(("$ ", "# ")), f"{page}: no prompt: {line}"
            found.append(Documented(page, re.split(r"\s+# ", line[2:])[0].strip()))
    return found


COMMANDS: Final = [
    command
    for page in PAGES
    for command in documented(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())
]

_NAMED = "--device A0:9E:1A:00:00:01 --name A0:9E:1A:00:00:01=left-wrist"
_WHO = "gateway operator viewer bridge wrist-01"
_LINE = 'echo "$who:$(openssl rand -hex 16)"'
RUN_HERE: Final = {
    "test_the_demo_replays_a_data_set": ('make demo ARGS="--dataset data/sp_sw_har.zip"',),
    "test_own_recordings_are_trained_on_scored_and_recognised": (
        "gammawear train har --data my-recordings/ --rate 50 --window 2 --stride 1 --name mine",
        "gammawear evaluate --bundle mine --data my-recordings/ --subjects test",
        "gammawear gateway --bundles runs",
        "gammawear device --bundle mine --bundles runs --dataset my-recordings/",
        "gammawear bridge --bundle mine --bundles runs",
    ),
    "test_gateways": (
        "gammawear gateway --host broker.local --metrics-address 0.0.0.0",
        "gammawear gateway --page-host gateway.example --page-token-file token",
        "gammawear --log-format json gateway 2>> gateway.jsonl",
    ),
    "test_devices_and_cameras": (
        "gammawear device --count 20 --host broker.local",
        "gammawear camera --fps 2",
        "gammawear camera --raw my-frames/ --fps 0.5 --gated",
    ),
    "test_a_device_runs_another_codebook": (
        "gammawear bundles config mine > config.json",
        "mosquitto_pub -r -q 1 -t gammawear/v1/wearable-01/config -f config.json",
    ),
    "test_a_detector_is_exported": ("gammawear bundles export street --onnx street.onnx",),
    "test_bridges": (
        "gammawear bridge --bundle wrist6",
        "gammawear bridge --bundle wrist6 --host broker.local",
        f"gammawear bridge --bundle wrist6 {_NAMED} --axes=-1,2,-3",
        "gammawear bridge --profile-file docs/examples/arduino-nano-33.toml --bundle wrist6",
    ),
    "test_accounts_are_made": (f"(umask 077; for who in {_WHO}; do {_LINE}; done > accounts)",),
}
"""What each test of ``test_docs_commands_run.py`` runs."""

RUN_BY: Final = {
    "make demo": ".ci/run::make demo",
    "make test": ".ci/run::make test",
    "gammawear wearable --count 8 --air 9001": (
        "test_gammawear_bluetooth.py::test_wearables_bridge_and_gateway_as_processes"
    ),
    "gammawear bridge --hci tcp-client:127.0.0.1:9001": (
        "test_gammawear_bluetooth.py::test_wearables_bridge_and_gateway_as_processes"
    ),
    "gammawear gateway": "test_gammawear_service.py::test_services_end_with_a_goodbye",
    "gammawear gateway --host broker.local": "test_gammawear_service.py::test_services_end_with_a_goodbye",
    "gammawear bridge --scan": "test_gammawear_bluetooth.py::test_scan_lists_what_is_near",
    "gammawear record *": "test_gammawear_bluetooth.py::test_a_recording_with_typed_labels_can_be_trained_on",
    "gammawear train har --data own *": (
        "test_gammawear_bluetooth.py::test_a_recording_with_typed_labels_can_be_trained_on"
    ),
    "gammawear bundles": "test_gammawear_cli.py::test_bundles",
    "gammawear evaluate --bundle wrist6 *": "test_gammawear_cli.py::test_evaluation_gives_the_scores_of_the_manifest",
    "gammawear evaluate --bundle bccd@1 *": (
        "test_gammawear_evaluation.py::test_a_shipped_detector_has_the_scores_of_its_manifest"
    ),
    "gammawear evaluate --bundle table *": "test_gammawear_evaluation.py::test_own_pictures_from_first_to_last",
    "gammawear train detector --data my-pictures/ *": (
        "test_gammawear_evaluation.py::test_only_some_classes_and_an_own_split"
    ),
    "gammawear train detector --data PennFudanPed.zip *": (
        "test_gammawear_vision.py::test_a_detector_is_trained_saved_and_listed"
    ),
    ".venv/bin/gammawear datasets fetch *": (
        "test_models_fetch.py::test_zenodo_record_gives_address_size_and_checksum"
    ),
    "GAMMAWEAR_USERNAME=* gammawear gateway *": "test_gammawear_password_file.py::test_a_service_gets_in_with_it",
    "GAMMAWEAR_USERNAME=* gammawear device *": "test_deploy_whole.py::test_the_whole_site_comes_up_works_and_goes_down",
    "prometheus *": "test_deploy_prometheus.py::test_a_gateway_that_stops_is_missed",
    "promtool test rules *": "test_deploy_prometheus.py::test_rules_and_alerts_do_what_they_should",
    "docker/prepare.sh": (
        "test_deploy_containers.py::test_it_makes_all_that_compose_names_and_changes_nothing_later"
    ),
    "./make-certificates.sh --out *": (
        "test_deploy_mosquitto_certificates.py::test_certificates_are_for_the_names_given_and_keys_for_nobody_else"
    ),
    "./make-certificates.sh --force *": (
        "test_deploy_mosquitto_certificates.py::test_certificates_are_replaced_only_when_told_and_the_ca_never"
    ),
    "mosquitto_passwd *": (
        "test_deploy_mosquitto.py::test_a_changed_password_ends_the_old_connection_and_no_other"
    ),
    "kubectl *": "test_deploy_kubernetes.py::test_the_page_makes_what_the_manifests_refer_to",
    "make speed": "test_gammawear_cli.py::test_the_speed_benchmark_runs",
    "python -m benchmarks.lossless": "test_benchmarks_lossless.py::test_recordings_give_every_row",
}  # fmt: skip
"""Which test runs a command, or what is behind it, with other hosts, ports, folders or lengths; ``*`` is anything."""


NOT_RUN: Final = {
    "make demo PIP_ARGS=*": "needs PyTorch's own index on the Internet",
    "make train": "trains for hours",
    "gammawear train detector": "trains for hours; test_models_vision_train.py trains on generated scenes",
    "gammawear train detector --data BCCD_Dataset.zip": "trains for hours",
    "python -m benchmarks.*": "trains or measures for minutes to days; its options are checked",
    "docker compose *": "needs Docker; test_deploy_whole.py starts what compose.yaml says without containers",
    "python3 -m venv /opt/gammawear *": "needs root, and installs",
    "cp *": "needs root and changes /etc; test_deploy_systemd.py and test_deploy_mosquitto.py use the files copied",
    "install *": "needs root and changes /etc, or a home",
    "systemctl *": "needs root and systemd; test_deploy_systemd.py asks systemd-analyze about the units",
    "apt install *": "needs root, and installs",
    "pip install *": "installs",
    "tests/bluez/run.sh": "needs root and minutes: a virtual machine with BlueZ",
    "mosquitto_sub *": "needs the secured broker under its name, and a home",
    "kill -HUP *": "reloads the machine's own mosquitto; test_deploy_mosquitto.py does it to its own",
    "export *": "sets what later commands read; its variables are checked",
    "DATA=*": "sets what later commands read",
    ". .venv/bin/activate": "changes the shell",
}
"""Why nothing runs a command; ``*`` is anything. An entry without ``*`` counts first."""
