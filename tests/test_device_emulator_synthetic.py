"""Generated wearers: what every source must hold to, and what makes them wearers."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_checks import check_source

from device_emulator.synthetic import SyntheticSource, wearers
from device_emulator.wearer import FOLDER, MAX_FILE_BYTES, Wearer, load_wearer, read_wearer
from models.bundle import load_bundle
from models.resample import Segment
from models.scores import f1_per_class, score
from models.tasks import TASKS
from models.windows import cut
from quantization.codec import Encoder
from quantization.errors import DatasetError, GammawearError, SensorError
from quantization.imu import ACC, ACC_GYRO
from quantization.sensor import PARTS, Sensor

WRIST = PARTS["generic12"].sensor("generic12", ACC_GYRO, acc_g=8.0, gyro_dps=2000.0)
ACC_ONLY = PARTS["bma400"].sensor("bma400", ACC, acc_g=8.0, gyro_dps=None)
SENSORS = {"tug": WRIST, "wisdm": ACC_ONLY}


def counts(source: SyntheticSource, seconds: float) -> list[list[int]]:
    return source.read(round(seconds * source.rate_hz)).counts.tolist()


def bouts(label: np.ndarray) -> list[tuple[int, int]]:
    """(label, samples) of every whole bout: not the first and the last, which are cut."""
    edges = [0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)]
    return [(int(label[a]), b - a) for a, b in itertools.pairwise(edges)][1:-1]


@pytest.mark.parametrize("wearer", sorted(SENSORS))
@pytest.mark.parametrize("persona", [None, 3])
def test_is_a_source(wearer: str, persona: int | None) -> None:
    check_source(lambda: SyntheticSource(SENSORS[wearer], seed=5, persona=persona, wearer=wearer, rate_hz=20.0))


def test_all_shipped_wearers_are_tested() -> None:
    assert wearers() == sorted(SENSORS)


@pytest.mark.parametrize("part", sorted(PARTS))
def test_wears_every_part(part: str) -> None:
    gyro = 2000.0 if PARTS[part].gyro_dps else None
    sensor = PARTS[part].sensor(part, ACC_GYRO if gyro else ACC, acc_g=8.0, gyro_dps=gyro)
    block = SyntheticSource(sensor, seed=1).read(3000)
    gravity = np.linalg.norm(np.median(sensor.to_physical(block.counts)[:, :3], axis=0))
    assert 0.7 < gravity < 1.3


def test_the_seed_decides() -> None:
    assert counts(SyntheticSource(WRIST, seed=1), 30) == counts(SyntheticSource(WRIST, seed=1), 30)
    assert counts(SyntheticSource(WRIST, seed=1), 30) != counts(SyntheticSource(WRIST, seed=2), 30)
    same_persona = [SyntheticSource(WRIST, seed=seed, persona=4) for seed in (1, 2)]
    assert same_persona[0].subject == same_persona[1].subject
    assert counts(same_persona[0], 30) != counts(same_persona[1], 30)
    assert len({SyntheticSource(WRIST, seed=seed).subject for seed in range(40)}) > 5


def test_naming_the_persona_that_the_seed_would_choose_changes_nothing() -> None:
    chosen = SyntheticSource(WRIST, seed=9)
    assert counts(SyntheticSource(WRIST, seed=9, persona=chosen.subject), 20) == counts(chosen, 20)


def test_rounds_are_not_repeated() -> None:
    source = SyntheticSource(WRIST, seed=3, persona=0)
    values = source.sensor.to_physical(source.read(50 * 300).counts)
    half = len(values) // 2
    wave = values[:half, 0] - values[:half, 0].mean()
    spectrum = np.abs(np.fft.rfft(wave, 2 * half)) ** 2
    correlation = np.fft.irfft(spectrum)[:half]
    # The gait of one stride is like that of the next; a round that came again would reach 1.
    assert correlation[50 * 5 :].max() < 0.8 * correlation[0]


def walking_peak_hz(rate_hz: float, seed: int) -> float:
    """The strongest frequency of all walking bouts of one persona, in the band where steps and strides are."""
    source = SyntheticSource(WRIST, rate_hz=rate_hz, seed=seed, persona="synthetic-05")
    block = source.read(round(400 * rate_hz))
    walking = block.label == source.labels.index("WALKING")
    values = source.sensor.to_physical(block.counts)[:, 0]
    size, power = round(40 * rate_hz), 0.0
    edges = np.flatnonzero(np.diff(walking.astype(int), prepend=0, append=0))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        part = values[start:end] - values[start:end].mean()
        power = power + np.abs(np.fft.rfft(part * np.hanning(len(part)), size)) ** 2
    frequency = np.arange(len(power)) * rate_hz / size
    band = (frequency > 0.6) & (frequency < 3.0)
    return float(frequency[band][power[band].argmax()])


def test_walks_at_the_same_pace_at_any_rate() -> None:
    peaks = [walking_peak_hz(rate_hz, seed) for seed, rate_hz in enumerate((20.0, 26.0, 50.0, 52.0, 100.0))]
    assert max(peaks) - min(peaks) < 0.15, peaks
    assert 0.7 < np.median(peaks) < 2.6


def spread(rate_hz: float) -> np.ndarray:
    source = SyntheticSource(WRIST, rate_hz=rate_hz, seed=2, persona=1)
    return source.sensor.to_physical(source.read(round(240 * rate_hz)).counts).std(axis=0)


@pytest.mark.parametrize("rate_hz", [5.0, 12.5, 20.0, 100.0, 400.0])
def test_strength_does_not_depend_on_the_rate(rate_hz: float) -> None:
    assert spread(rate_hz) == pytest.approx(spread(50.0), rel=0.25)


def test_saturates_like_an_adc() -> None:
    narrow = Sensor.symmetric("narrow", ACC_GYRO, adc_bits=12, full_scale={"acc": 0.5, "gyro": 40.0})
    block = SyntheticSource(narrow, seed=0).read(5000)
    assert block.counts.max() == narrow.count_max
    assert block.counts.min() == narrow.count_min


def test_rounds_are_the_test_that_they_are_named_after() -> None:
    source = SyntheticSource(WRIST, seed=0, persona=2)
    whole = bouts(source.read(50 * 600).label)
    names = [source.labels[label] for label, _ in whole]
    start = names.index("SEATED")
    a_round = ["SEATED", "STANDING_UP", "WALKING", "TURNING", "WALKING", "TURNING", "SITTING_DOWN"]
    expected = a_round * (len(names) // len(a_round) + 1)
    assert names[start:] == expected[: len(names) - start]
    # Range of the recordings, from the 1st to the 99th percentile of all subjects, and some more.
    for name, low, high in (
        ("SEATED", 0.5, 6.0),
        ("STANDING_UP", 0.5, 3.0),
        ("WALKING", 1.2, 4.5),
        ("TURNING", 0.4, 2.5),
        ("SITTING_DOWN", 0.6, 3.5),
    ):
        lasting = [samples / 50 for label, samples in whole if source.labels[label] == name]
        assert len(lasting) > 20
        assert low < min(lasting), name
        assert max(lasting) < high, name


def test_activities_of_a_day_are_shuffled() -> None:
    source = SyntheticSource(ACC_ONLY, rate_hz=20.0, seed=0, wearer="wisdm")
    whole = bouts(source.read(20 * 3600).label)
    lasting = np.array([samples / 20 for _, samples in whole])
    assert lasting.min() > 10
    assert lasting.max() < 120
    assert 20 < np.median(lasting) < 60
    assert {label for label, _ in whole} == set(range(len(source.labels)))


def test_devices_do_not_move_in_step() -> None:
    first = [SyntheticSource(WRIST, seed=seed, persona=0).read(1).label[0] for seed in range(30)]
    assert len(set(first)) >= 3


def test_joins_are_smooth() -> None:
    source = SyntheticSource(WRIST, rate_hz=100.0, seed=4, persona=3)
    block = source.read(100 * 200)
    steps = np.abs(np.diff(source.sensor.to_physical(block.counts), axis=0))
    at_joins = np.diff(block.label) != 0
    assert (steps[at_joins].mean(axis=0) < 2 * steps.mean(axis=0)).all()


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: SyntheticSource(WRIST, wearer="nobody"), DatasetError, "there are tug, wisdm"),
        (lambda: SyntheticSource(WRIST, wearer="../wearers/tug"), DatasetError, "no wearer"),
        (lambda: SyntheticSource(WRIST, persona="s01"), DatasetError, "synthetic-01"),
        (lambda: SyntheticSource(WRIST, persona=99), DatasetError, "no persona 99"),
        (lambda: SyntheticSource(WRIST, persona=-1), DatasetError, "no persona -1"),
        (lambda: SyntheticSource(WRIST, rate_hz=1.0), SensorError, "5 to 1000 Hz"),
        (lambda: SyntheticSource(WRIST, rate_hz=float("nan")), SensorError, "nan"),
        (lambda: SyntheticSource(WRIST, wearer="wisdm"), SensorError, "has no gyro_x"),
    ],
)
def test_what_is_not_there_is_said(make: Callable[[], object], error: type[GammawearError], said: str) -> None:
    with pytest.raises(error, match=said):
        make()


# --- parameter files


@pytest.mark.parametrize("name", sorted(SENSORS))
def test_parameters_are_small_and_say_where_they_come_from(name: str) -> None:
    path = FOLDER / f"{name}.json"
    assert path.stat().st_size <= MAX_FILE_BYTES
    origin = read_wearer(path).origin
    task = TASKS[origin.dataset]
    assert not set(origin.subjects) & set(task.test), "a wearer is not fitted to anyone whom bundles are tested on"
    assert origin.licence == "CC-BY-4.0" or "CC BY 4.0" in origin.licence
    assert origin.citation
    assert origin.command.startswith("benchmarks/fit_wearers.py")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda w: w.pop("kinds"), "kinds"),
        (lambda w: w.update(surplus=1), "surplus"),
        (lambda w: w.update(format="gammawear-wearer-2"), "format"),
        (lambda w: w["unit"].pop(), "unit"),
        (lambda w: w["mix"].pop(), "mix"),
        (lambda w: w["band_hz"].reverse(), "band_hz"),
        (lambda w: w["schedule"].append("flying"), "schedule"),
        (lambda w: w["labels"].remove("TURNING"), "labels"),
        (lambda w: w["kinds"]["rise"]["deviation"][0].pop(), "rise"),
        (lambda w: w["personas"][1]["bouts"].pop("sit"), "synthetic-02"),
        (lambda w: w["personas"][1]["bouts"]["sit"][0]["mean"].pop(), "synthetic-02 sit: size of mean"),
        (lambda w: w["personas"][1]["bouts"]["sit"][0]["noise_db"].pop(), "size of noise_db"),
        (lambda w: w["personas"][0]["bouts"]["out"][0].update(gait=None), "gait"),
        (lambda w: w["personas"][0]["bouts"]["out"][0].update(seconds=-1), "seconds"),
        (lambda w: w["personas"][0]["bouts"].update(out=[]), "out"),
        (lambda w: w["personas"][1].update(name="synthetic-01"), "names repeat"),
    ],
)
def test_damaged_parameters_are_refused(tmp_path: Path, damage: Callable[[Any], object], said: str) -> None:
    parameters = json.loads((FOLDER / "tug.json").read_text(encoding="utf-8"))
    damage(parameters)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(parameters), encoding="utf-8")
    with pytest.raises(DatasetError, match=said) as caught:
        read_wearer(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": NaN}', b"[" * 50_000, b" " * (MAX_FILE_BYTES + 1)]
)
def test_what_is_no_parameter_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wearer.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"wearer\.json"):
        read_wearer(path)
    with pytest.raises(DatasetError, match="absent"):
        read_wearer(tmp_path / "absent.json")


def test_wears_parameters_that_are_given() -> None:
    given = Wearer.model_validate(json.loads((FOLDER / "tug.json").read_text(encoding="utf-8")))
    assert counts(SyntheticSource(WRIST, seed=7, wearer=given), 20) == counts(SyntheticSource(WRIST, seed=7), 20)


# --- what it is for


def test_is_cheap() -> None:
    """500 devices run on one core: a second of signal must take far less than 2 ms. It takes about 60 µs."""
    source = SyntheticSource(WRIST, seed=0)
    source.read(5000)
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for _ in range(200):
            source.read(50)
        best = min(best, (time.process_time() - start) / 200)
    assert best < 400e-6


@pytest.mark.parametrize(
    ("wearer", "bundle_name", "at_least", "seconds"), [("tug", "wrist6", 0.8, 120), ("wisdm", "wrist3", 0.7, 600)]
)
def test_the_shipped_bundle_recognises_it(wearer: str, bundle_name: str, at_least: float, seconds: int) -> None:
    """By the device's path: counts, codes, network. The bundle has been trained on real recordings only."""
    bundle = load_bundle(bundle_name)
    manifest = bundle.manifest
    known = [bundle.labels.index(name) for name in load_wearer(wearer).labels]
    encoder = Encoder(bundle.codebook, bundle.sensor)
    segments = []
    for persona in range(len(load_wearer(wearer).personas)):
        source = SyntheticSource(
            bundle.sensor, rate_hz=manifest.rate_hz, seed=50 + persona, persona=persona, wearer=wearer
        )
        block = source.read(round(seconds * manifest.rate_hz))
        label = np.array(known, dtype=np.int16)[block.label]
        # float32 holds codes exactly.
        codes = encoder.encode(block.counts).astype(np.float32)
        segments.append(Segment(source.subject, "", bundle.codebook.channels, manifest.rate_hz, 0.0, codes, label))
    windows = cut(segments, length=manifest.window, stride=manifest.stride, classes=len(bundle.labels))
    assert len(windows) * manifest.stride / manifest.rate_hz > 600
    probabilities = np.concatenate(
        [bundle.predict(part.astype(np.uint8)).probabilities for part in np.array_split(windows.values, 20)]
    )
    f1 = f1_per_class(score(windows, probabilities).confusion)[known]
    assert f1.mean() >= at_least, dict(zip(load_wearer(wearer).labels, f1.round(3), strict=True))
    if wearer == "tug":
        assert f1.mean() <= 0.97, "easier than real people: a caricature"
