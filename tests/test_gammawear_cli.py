"""The command line: help, exit statuses, sentences instead of tracebacks, and training from first to last."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from bundle_edits import with_manifest
from safetensors import SafetensorError, safe_open
from stack import archive, until
from test_gammawear_service import Command, start

from gammawear import cli, logs
from gammawear.logs import NOTES
from models.bundle import SHIPPED, Bundle, load_bundle
from models.fit import Fit
from models.har import NETWORKS

__all__ = ["start"]

ROOT = Path(__file__).parents[1]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Run]:
    """A function that runs a command here, in an empty folder: (exit status, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys.modules["__main__"], "__package__", "")  # or help would call itself python -m pytest
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(NOTES, "_file", None)  # where --log-format json has put it
    monkeypatch.setattr(NOTES, "_width", None)
    for handler in logs._installed:  # of a command that another kind of test ran here
        logging.root.removeHandler(handler)
    logs._installed.clear()
    before = logging.root.handlers[:], logging.root.level

    def main(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gammawear", *arguments])
        try:
            cli.main()
            status: Any = 0
        except SystemExit as end:
            status = end.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    yield main
    logging.root.handlers[:] = before[0]
    logging.root.setLevel(before[1])  # loggers remember what they asked the root for: only this makes them forget


def commands(group: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, groups included."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, *path, name)


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


# -- help and errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help(run: Run, path: tuple[str, ...]) -> None:
    status, out, err = run(*path, "--help")
    assert (status, err) == (0, "")
    assert "Usage: gammawear" in out
    if not getattr(COMMANDS[path], "commands", {}):
        example = re.search(rf"Examples?:\s+gammawear {' '.join(path)}", out)
        assert example, "a command's help shows how it is called"
        for parameter in COMMANDS[path].params:
            assert any(name in out for name in parameter.opts)


def test_help_names_every_network(run: Run) -> None:
    _, out, _ = run("train", "har", "--help")
    for name in NETWORKS:
        assert re.search(rf"\b{name}\b", out)


def test_help_waits_for_no_heavy_import() -> None:
    heavy = (
        "torch",
        "river",
        "numba",
        "scipy",
        "sklearn",
        "matplotlib",
        "prometheus_client",
        "bleak",
        "bumble",
        "rawpy",
    )
    program = f"import sys, gammawear.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_it_is_a_module_too() -> None:
    command = [sys.executable, "-m", "gammawear", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith("gammawear ")


def test_version(run: Run) -> None:
    status, out, _ = run("--version")
    assert status == 0
    assert re.fullmatch(r"gammawear \d+\.\d+\.\d+\n", out)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["device", "--bundle", "nope"], "no bundle 'nope'; known: wrist3@"),
        (["demo", "--bundle", "wrist6@99"], "no bundle 'wrist6@99'"),
        (["bundles", "show", "nope"], "no bundle 'nope'"),
        (["evaluate", "--bundle", "nope", "--data", "x"], "no bundle 'nope'; known: wrist3@"),
        (["evaluate", "--bundle", "nope", "--data", "x"], "bccd@"),
        (["bundles", "export", "street", "--onnx", "absent/x.onnx"], "absent/x.onnx: name a file in a folder that"),
        (["train", "har", "--data", "x", "--dataset", "nope"], "nope"),
        (["datasets", "fetch", "nope"], "nope"),
        (["datasets", "fetch", "bccd"], "Get https://github.com/Shenggan/BCCD_Dataset"),
        (["evaluate", "--bundle", "wrist6", "--data", "absent.zip"], "absent.zip"),
        (["train", "har", "--data", "absent"], "absent"),
        (["device", "--dataset", "absent.zip"], "absent.zip"),
        (["device", "--trace", "absent.gwtrace"], "absent.gwtrace"),
        (["device", "--part", "nope"], "no part is called 'nope'"),
        (["device", "--axes", "up,down"], "'up,down'"),
        (["device", "--tls", "--ca-file", "absent.pem"], "absent.pem"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_sentences(run: Run, arguments: list[str], sentence: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert sentence in last


@pytest.mark.parametrize("command", ["device", "wearable --air 0", "demo"])
def test_only_people_who_are_there_are_replayed(run: Run, tmp_path: Path, command: str) -> None:
    recordings = archive("sp_sw_har.zip")
    knows_all = shutil.copytree(SHIPPED / "wrist6@2", tmp_path / "wrist6@2")
    with_manifest(knows_all, {"data.train_subjects": [f"s{n:02d}" for n in range(100)]})
    for options, sentence in (
        (("--subjects", "s04,nosuch"), "error: no subject nosuch; there are s01, "),
        (("--bundle", str(knows_all)), "error: wrist6@2 was trained on everybody in this data: say with --subjects"),
    ):
        status, out, err = run(*command.split(), "--dataset", str(recordings), *options)
        assert (status, out) == (1, "")
        assert err.splitlines()[-1].startswith(sentence)


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [("full.png", "No space left on device"), ("absent/x.png", "absent/x.png: No such file or directory")],
)
def test_what_cannot_be_written_is_a_sentence(run: Run, tmp_path: Path, picture: str, sentence: str) -> None:
    (tmp_path / "full.png").symlink_to("/dev/full")
    status, _, err = run("bundles", "show", "wrist3", "--picture", picture)
    assert status == 1
    assert "Traceback" not in err
    assert err.splitlines()[-1] == f"error: {sentence}"


@pytest.mark.parametrize("command", ["demo", "evaluate --bundle wrist6 --data absent.zip"])
def test_a_picture_that_cannot_be_written_is_said_before_the_work(run: Run, command: str) -> None:
    status, out, err = run(*command.split(), "--picture", "absent/x.svg")
    assert (status, out, err) == (1, "", "error: absent/x.svg: No such file or directory\n")


def test_where_a_file_was_missed_is_logged_for_those_who_ask(run: Run) -> None:
    status, _, err = run("--log-level", "debug", "bundles", "show", "wrist3", "--picture", "absent/x.png")
    assert status == 1
    assert "Traceback" in err
    assert err.splitlines()[-1] == "error: absent/x.png: No such file or directory"


def test_an_error_of_ours_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("gammawear.learn.print_bundles", broken)
    with pytest.raises(OSError, match="Bad file"):
        run("bundles")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nope"],
        ["demo", "--nope"],
        ["demo", "--broker", "rabbit"],
        ["demo", "--seconds", "soon"],
        ["device", "--count", "0"],
        ["device", "--qos", "2"],
        ["device", "--mqtt", "4"],
        ["device", "--loss", "1.5"],
        ["device", "--trace", "a.gwtrace", "--count", "2"],
        ["device", "--subjects", "s04"],
        ["device", "--dataset", "absent.zip", "--rate", "50"],
        ["demo", "--subjects", "s04"],
        ["demo", "--once"],
        ["demo", "--picture", "x.png"],
        ["wearable", "--air", "0", "--trace", "a.gwtrace", "--part", "bmi270"],
        ["gateway", "--port", "70000"],
        ["gateway", "--deadline", "1000000"],
        ["gateway", "--client-id", ""],
        ["train", "har"],
        ["train", "har", "--data", "x", "--bits", "9"],
        ["train", "har", "--data", "x", "--quantizer", "cubic"],
        ["evaluate", "--bundle", "wrist6"],
        ["evaluate", "--bundle", "wrist6", "--data", "absent.zip", "--picture", "x.jpeg"],
        ["bundles", "show"],
        ["bundles", "show", "wrist6", "--picture", "x.xyz"],
    ],
    ids=" ".join,
)
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert status == 2
    assert "Usage: gammawear" in out + err
    assert "Traceback" not in err


def test_a_taken_metrics_port_is_an_error(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = run("gateway", "--port", str(port), "--metrics-port", str(port))
    assert status == 1
    assert re.fullmatch(rf"error: metrics cannot be served on 127\.0\.0\.1:{port}: .+", err.splitlines()[-1])


def test_a_taken_page_port_is_an_error_with_advice_that_the_demo_can_take(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = run("demo", "--cameras", "0", "--metrics-port", "0", "--page-port", str(port))
    assert status == 1
    sentence = r"the page cannot be served on .+: Address already in use; choose another --page-port, or 0 for any"
    assert re.fullmatch(f"error: {sentence}", err.splitlines()[-1])


# -- what there is ----------------------------------------------------------------------------------------------------


def test_bundles(run: Run) -> None:
    status, out, _ = run("bundles")
    assert status == 0
    for folder in SHIPPED.iterdir():
        if "@" in folder.name:
            bundle = load_bundle(folder)
            assert bundle.manifest.scores is not None
            line = next(line for line in out.splitlines() if bundle.reference in line)
            assert f"{bundle.manifest.scores.macro_f1:.3f}" in line
            assert bundle.codebook.short_digest.hex() in line


def test_bundles_as_json(run: Run) -> None:
    status, out, _ = run("bundles", "--json")
    assert status == 0
    rows = {row["bundle"]: row for row in json.loads(out)}
    wrist6 = load_bundle("wrist6")
    row = rows[wrist6.reference]
    assert (row["labels"], row["codebook"]) == (list(wrist6.labels), wrist6.codebook.digest.hex())
    assert wrist6.manifest.scores is not None
    assert row["macro_f1"] == wrist6.manifest.scores.macro_f1
    assert {row["kind"] for row in rows.values()} == {"activities", "detector"}


def test_datasets_as_json(run: Run) -> None:
    status, out, _ = run("datasets", "--json")
    assert status == 0
    assert {row["name"]: row["licence"] for row in json.loads(out)}["sp_sw_har"] == "CC-BY-4.0"


@pytest.mark.parametrize("name", ["wrist6", "wrist3"])
def test_bundles_show(run: Run, tmp_path: Path, name: str) -> None:
    status, out, _ = run("bundles", "show", name, "--picture", str(tmp_path / "curves.png"))
    assert status == 0
    assert json.loads(out) == load_bundle(name).manifest.model_dump(mode="json")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_datasets(run: Run) -> None:
    status, out, _ = run("datasets")
    assert status == 0
    for name in ("sp_sw_har", "wisdm2019_watch", "own", "penn_fudan", "bccd"):
        assert name in out
    assert "CC-BY-4.0" in out


@pytest.mark.parametrize(("name", "data"), [("wrist6", "sp_sw_har.zip"), ("wrist3", "wisdm2019_watch.zip")])
def test_evaluation_gives_the_scores_of_the_manifest(run: Run, tmp_path: Path, name: str, data: str) -> None:
    picture = tmp_path / "confusion.png"
    status, out, err = run(
        "evaluate", "--bundle", name, "--data", str(archive(data)), "--subjects", "test", "--json",
        "--picture", str(picture),
    )  # fmt: skip
    assert status == 0, err
    report = json.loads(out)
    manifest = load_bundle(name).manifest
    scores = manifest.scores
    assert scores is not None
    assert report["bundle"] == manifest.reference
    assert report["subjects"] == manifest.data.test_subjects
    assert (report["windows"], report["scoring_rule"]) == (scores.windows, scores.scoring_rule)
    # Four decimals; another processor may round one window in a thousand the other way.
    for figure in ("macro_f1", "accuracy", "macro_f1_pure", "unknown_share"):
        assert report[figure] == pytest.approx(getattr(scores, figure), abs=0.002)
    assert np.sum(report["confusion"]["rows_are_truth"]) == scores.windows
    assert picture.read_bytes().startswith(b"\x89PNG")


# -- training on recordings of one's own ------------------------------------------------------------------------------


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Four people who sit, walk and wave for 12 s each, as CSV files."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    rng = np.random.default_rng(0)
    t = np.arange(0, 12, 0.02)
    for person in ("ann", "ben", "cas", "dee"):
        for label, hz, g in (("sitting", 0.0, 0.0), ("walking", 1.8, 0.4), ("waving", 3.5, 1.5)):
            acc = np.stack([g * np.sin(2 * np.pi * hz * t + phase) for phase in (0, 1, 2)])
            acc[2] += 1.0
            acc += rng.normal(0, 0.05, acc.shape)
            rows = [f"{s:.2f},{x:.4f},{y:.4f},{z:.4f},{label}" for s, (x, y, z) in zip(t, acc.T.tolist(), strict=True)]
            text = "\n".join(["t_s,acc_x,acc_y,acc_z,label", *rows]) + "\n"
            (folder / f"{person}_{label}.csv").write_text(text, encoding="utf-8")
    return folder


def train(folder: Path, *, epochs: int) -> list[str]:
    return [
        "train", "har", "--data", str(folder), "--rate", "50", "--window", "1", "--stride", "0.5", "--name", "mine",
        "--network", "tinier", "--epochs", str(epochs), "--patience", "0", "--batch", "32",
    ]  # fmt: skip


def test_from_csv_files_to_a_bundle_that_recognises(run: Run, recordings: Path, tmp_path: Path) -> None:
    status, out, err = run(*train(recordings, epochs=12))
    assert status == 0, err
    assert "runs/mine@1" in out
    assert "gammawear gateway --bundles runs" in out
    bundle: Bundle = load_bundle(tmp_path / "runs" / "mine@1")
    assert bundle.labels == ("sitting", "walking", "waving")
    assert (bundle.manifest.window, bundle.manifest.stride, bundle.codebook.bits) == (50, 25, 4)

    status, out, err = run("evaluate", "--bundle", "mine", "--data", str(recordings), "--subjects", "test", "--json")
    assert status == 0, err
    report = json.loads(out)
    assert report["subjects"] == bundle.manifest.data.test_subjects == ["ann"]
    assert report["macro_f1"] > 0.8
    assert bundle.manifest.scores is not None
    assert report["macro_f1"] == pytest.approx(bundle.manifest.scores.macro_f1, abs=1e-4)

    status, out, err = run("evaluate", "--bundle", "mine", "--data", str(recordings))
    assert status == 0
    assert "took part in training" in err
    assert "macro-F1" in out
    picture = tmp_path / "confusion-mine@1.png"
    assert picture.exists()
    picture.unlink()
    picture.mkdir()  # nobody asked for it, so it may fail
    status, _, err = run("evaluate", "--bundle", "mine", "--data", str(recordings), "--subjects", "test")
    assert (status, "no confusion matrix: confusion-mine@1.png: Is a directory" in err) == (0, True), err

    status, out, _ = run("bundles")
    assert status == 0
    assert "mine@1" in out
    # A better network for the same codes: the second version, the first one's codebook.
    status, _, err = run(*train(recordings, epochs=2), "--freeze-codebook", "mine")
    assert status == 0, err
    assert load_bundle(tmp_path / "runs" / "mine@2").codebook.digest == bundle.codebook.digest


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/absent"])
def test_where_no_bundle_can_be_written_none_is_trained(run: Run, recordings: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    status, _, err = run(*train(recordings, epochs=2), "--out", out)
    assert status == 1
    assert "epoch 1" not in err
    assert err.splitlines()[-1].startswith(f"error: {out}: ")


def epochs_done(checkpoint: Path) -> int:
    """What a checkpoint says; 0 before there is one."""
    try:
        with safe_open(checkpoint, framework="pt") as file:
            return int(json.loads((file.metadata() or {})["progress"])["epoch"])
    except (OSError, SafetensorError):
        return 0


def test_training_that_is_stopped_before_its_first_checkpoint_promises_none(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_: Fit) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(Fit, "_train_one", stopped)
    status, _, err = run(*train(recordings, epochs=60))
    assert status == 130
    assert "stopped; the same command begins anew: there was no checkpoint yet" in err


def test_a_user_without_a_home_can_use_the_command() -> None:
    """As in a container with an arbitrary user id."""
    code = "import pathlib; del pathlib.Path.home; import gammawear.cli"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


async def test_training_goes_on_after_ctrl_c(
    start: Callable[..., Any], run: Run, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = train(recordings, epochs=60)
    checkpoint = tmp_path / "runs" / ".mine@1.safetensors"
    command: Command = await start(*arguments)
    await until(lambda: epochs_done(checkpoint) >= 3 or command.process.returncode is not None)
    assert command.process.returncode is None, command.err
    command.press_ctrl_c()
    assert await command.ends() == 130, command.err
    await command.says("the same command goes on from runs/.mine@1.safetensors")
    assert not [line for line in command.err if "Traceback" in line]
    done = epochs_done(checkpoint)
    assert 3 <= done < 60
    assert not (tmp_path / "runs" / "mine@1").exists()

    trained = []
    train_one = Fit._train_one

    def counted(self: Fit) -> float:
        trained.append(1)
        return train_one(self)

    monkeypatch.setattr(Fit, "_train_one", counted)
    status, out, err = run(*arguments)
    assert status == 0, err
    assert "runs/mine@1" in out
    assert len(trained) == 60 - done, "what was done is not done again"
    assert not checkpoint.exists()


# -- figures ----------------------------------------------------------------------------------------------------------


def test_the_speed_benchmark_runs(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    command = [sys.executable, "-m", "benchmarks.speed", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["quick"] is True
    assert result["machine"]["cores"] == os.cpu_count()
    assert {"what", "figure", "how"} <= set(result["rows"][0])
    assert all(value > 0 for value in result["figures"].values())
    for row in result["rows"]:
        assert row["what"] in done.stdout
    for bundle in (load_bundle("wrist6"), load_bundle("wrist3"), load_bundle("wrist6@1")):
        assert f"pipeline_us_per_packet/{bundle.reference}" in result["figures"]
        coded = {name for name in result["figures"] if name.startswith("entropy_") and bundle.reference in name}
        assert bool(coded) == (bundle.codebook.contexts is not None)
