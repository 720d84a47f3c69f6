"""The comparators are lossless, as small as they say, and counted in full; pictures show what the rows say."""

import json
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from needed import need

from benchmarks import frontier_plots, lossless
from models.bundle import load_bundle
from quantization.errors import GammawearError
from quantization.imu import Counts
from quantization.sensor import PARTS

ROOT = Path(__file__).parents[1]
HAR = ROOT.parent / "shared" / "data" / "har"
SENSOR = PARTS["generic12"].sensor(
    "generic12", ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"), acc_g=8.0, gyro_dps=2000.0
)
DPCM = (0, 1, 2, 3)


def counts_of() -> st.SearchStrategy[Counts]:
    shapes = npst.array_shapes(min_dims=2, max_dims=2, max_side=40)
    return npst.arrays(np.int32, shapes, elements=st.integers(-2048, 2047))


def walk(samples: int, channels: int, step: float, seed: int = 0) -> Counts:
    rng = np.random.default_rng(seed)
    return np.clip(np.rint(rng.normal(0, step, (samples, channels)).cumsum(axis=0)), -2048, 2047).astype(np.int32)


def signed(value: int) -> int:
    return value - 4096 if value & 0x800 else value


def rice_decode(data: bytes, samples: int, channels: int, orders: tuple[int, ...]) -> tuple[Counts, int]:
    """Written from the format alone: bits one by one, the predictors as their recurrences. Counts and bits read."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def take(width: int) -> int:
        nonlocal at
        at += width
        return int(bits[at - width : at] or "0", 2)

    predict: dict[int, Callable[[list[int]], int]] = {
        0: lambda _: 0,
        1: lambda x: x[-1],
        2: lambda x: 2 * x[-1] - x[-2],
        3: lambda x: 3 * x[-1] - 3 * x[-2] + x[-3],
    }
    columns = []
    for _ in range(channels):
        order = take(2) if len(orders) > 1 else orders[0]
        k = take(4)
        if k == 15:
            columns.append([signed(take(12)) for _ in range(samples)])
            continue
        column = [signed(take(12)) for _ in range(order)]
        while len(column) < samples:
            quotient = 0
            while take(1) == 0:
                quotient += 1
            number = quotient << k | take(k)
            column.append(predict[order](column) + (number // 2 if number % 2 == 0 else -(number + 1) // 2))
        columns.append(column)
    return np.array(columns, dtype=np.int32).T, at


@pytest.mark.parametrize("orders", [(1,), DPCM])
@given(counts=counts_of())
def test_rice_packets_decode_alone_and_end_where_they_end(counts: Counts, orders: tuple[int, ...]) -> None:
    data = lossless.rice_encode(counts, orders)
    samples, channels = counts.shape
    decoded, bits = rice_decode(data, samples, channels, orders)
    assert np.array_equal(decoded, counts)
    assert len(data) == -(-bits // 8)


@given(counts=counts_of())
def test_rice_is_never_longer_than_plain_packing_and_its_headers(counts: Counts) -> None:
    samples, channels = counts.shape
    assert len(lossless.rice_encode(counts, DPCM)) <= -(-(12 * samples + 6) * channels // 8)


def test_rice_bits_by_hand() -> None:
    # Differences 2, 2, -1 are the numbers 4, 4, 1: k = 1 codes them shortest, after itself and the first sample.
    bits = "00010000000001010010001011000000"
    assert lossless.rice_encode(np.array([[5], [7], [9], [8]], dtype=np.int32), (1,)) == int(bits, 2).to_bytes(4, "big")
    # A straight line is predicted by order 2: two samples, then 98 zeros of one bit.
    line = 3 * np.arange(100, dtype=np.int32)[:, None]
    assert len(lossless.rice_encode(line, DPCM)) == -(-(2 + 4 + 2 * 12 + 98) // 8)


def test_prediction_helps_where_the_signal_is_smooth() -> None:
    smooth = np.rint(800 * np.sin(np.arange(100)[:, None] / 8 + np.arange(3))).astype(np.int32)
    assert len(lossless.rice_encode(smooth, DPCM)) < 0.7 * len(lossless.rice_encode(smooth, (1,)))


@given(counts=counts_of())
def test_planes_hold_the_counts(counts: Counts) -> None:
    data = np.frombuffer(lossless.delta_planes(counts), dtype=np.uint8).astype(np.int64)
    numbers = (data[: counts.size] + 256 * data[counts.size :]).reshape(counts.shape[::-1])
    steps = np.where(numbers % 2 == 0, numbers // 2, -(numbers + 1) // 2)
    assert np.array_equal(steps.cumsum(axis=1).T, counts)


@given(data=st.binary(min_size=1, max_size=2000))
def test_compressed_without_a_container_decompresses(data: bytes) -> None:
    assert zlib.decompress(lossless.deflate(data), -zlib.MAX_WBITS) == data
    reader = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS)
    assert reader.decompress(lossless.zstd(data), max_output_size=len(data)) == data
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    assert lzma.decompress(lossless.xz(data), lzma.FORMAT_RAW, filters=filters) == data


def test_containers_are_what_is_left_out() -> None:
    data = lossless.int16(walk(500, 6, 20.0))
    whole = zstandard.ZstdCompressor(level=19).compress(data)
    assert len(lossless.zstd(data)) <= len(whole) - 4
    assert 0 <= len(lzma.compress(data, preset=6)) - len(lossless.xz(data)) <= 80


def test_json_is_what_a_developer_would_send() -> None:
    counts = np.array([[0, 256, -1, 1, 0, 0], [0, 0, 0, 0, 0, 2047]], dtype=np.int32)
    message = json.loads(lossless.json_message(counts, SENSOR, 50.0))
    assert message == [
        {"t": 1_760_000_000_000, "acc": [0.0, 1.0, -0.0039], "gyro": [0.9766, 0.0, 0.0]},
        {"t": 1_760_000_000_020, "acc": [0.0, 0.0, 0.0], "gyro": [0.0, 0.0, 1999.0234]},
    ]


def test_headers_and_publish_packets_are_counted() -> None:
    blocks = lossless.packets([walk(260, 6, 20.0), walk(49, 6, 20.0)], 50.0, 1.0)
    assert [len(block) for block in blocks] == [50] * 5  # tails are dropped
    row = lossless.measure(lossless.coders(SENSOR, 50.0)["packed-12"], blocks, 50.0, live=True)
    # 450 bytes for 300 values; 12 of header; type 1, length 2, topic 2 + 19, length of properties 1.
    assert row["bits_per_sample_payload"] == 12.0
    assert row["bits_per_sample_all_in"] == pytest.approx(8 * 462 / 300)
    assert row["bps_per_channel_all_in"] == pytest.approx(50 * 8 * 462 / 300)
    assert row["bps_per_channel_publish"] == pytest.approx(50 * 8 * (462 + 25) / 300, abs=0.01)


def test_a_packet_has_as_many_samples_as_a_device_puts_into_it() -> None:
    assert [len(block) for block in lossless.packets([walk(30, 3, 1.0)], 12.5, 1.0)] == [12, 12]


def test_the_middle_is_cut_out() -> None:
    counts = np.arange(10, dtype=np.int32)[:, None]
    assert lossless.middle(counts, 0.4).ravel().tolist() == [3, 4, 5, 6]
    assert len(lossless.middle(counts, 1.0)) == 10


def test_recordings_give_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need((HAR / "sp_sw_har.zip").exists(), str(HAR / "sp_sw_har.zip"))
    out = tmp_path / "lossless.json"
    arguments = ["lossless", "--data", str(HAR), "--datasets", "sp_sw_har", "--rates", "25", "--minutes", "5"]
    monkeypatch.setattr("sys.argv", [*arguments, "--out", str(out)])
    lossless.main()
    rows = {(row["coder"], row["packet_s"]): row for row in json.loads(out.read_text())["rows"]}
    assert {row["channels"] for row in rows.values()} == {6}
    assert all(row["minutes"] == pytest.approx(5, abs=0.1) for row in rows.values())
    assert len(rows) == 1 + 5 * 2 + 6 * 3
    bits = {key: row["bits_per_sample_payload"] for key, row in rows.items()}
    assert bits["packed-12", 1.0] == 12.0
    # What the data say: prediction gains over deltas, two seconds over one, both over a general compressor.
    assert bits["dpcm-rice", 2.0] < bits["dpcm-rice", 1.0] < bits["delta-rice", 1.0] < bits["delta-xz-6", 1.0]
    assert 4.0 < bits["dpcm-rice", 2.0] < 7.0
    assert rows["zstd-19", None]["bps_per_channel_publish"] is None


# -- pictures ---------------------------------------------------------------------------------------------------------


def point(quantizer: str, bits: int, all_in: float | None, macro_f1: float, **more: Any) -> dict[str, Any]:
    lost = macro_f1 - 0.87
    return {
        "dataset": "sp_sw_har", "model": "cnn", "quantizer": quantizer, "bits": bits, "rate_hz": 50.0, "lambda": 0.0,
        "loop": "plain", "packet_s": 2.0, "bps_per_channel_all_in": all_in, "macro_f1": macro_f1,
        "macro_f1_12bit_best": 0.87, "delta_macro_f1": lost, "delta_low": lost - 0.01, "delta_high": lost + 0.01,
        "selected": False,
    } | more  # fmt: skip


def selected(quantizer: str, bits: int, rates: tuple[float, float], weight: float) -> dict[str, Any]:
    choices = {str(fold): {"rate_hz": rate, "bits": bits, "lambda": weight} for fold, rate in enumerate(rates)}
    return point(quantizer, bits, 30.0, 0.868, selected=True, choices=choices, rate_hz=sum(rates) / 2)


POINTS = [
    point("none", 12, 608.0, 0.870),
    point("gamma", 4, 20.0, 0.866),
    point("gamma", 4, 60.0, 0.872),
    point("linear", 2, 10.0, 0.830),
    point("lsq", 4, None, 0.830),
    selected("none", 12, (50.0, 50.0), 0.0),
    selected("gamma", 4, (50.0, 25.0), 0.1),
]
LOSSLESS = [
    {"dataset": "sp_sw_har", "rate_hz": rate, "coder": coder, "packet_s": 2.0, "bps_per_channel_all_in": bps}
    for rate, coder, bps in ((50.0, "dpcm-rice", 282.0), (25.0, "packed-12", 308.0), (50.0, "xz-6", 505.0))
]


def run_of(quantizer: str, fold: int, rate_hz: float, weight: float, **subjects: float) -> dict[str, Any]:
    return {
        "network": "cnn", "quantizer": quantizer, "bits": 12 if quantizer == "none" else 4, "loop": "plain",
        "fold": fold, "rate_hz": rate_hz, "rate_weight": weight, "per_subject_macro_f1": subjects,
    }  # fmt: skip


RUNS = [
    run_of("none", 0, 50.0, 0.0, s1=0.9),
    run_of("none", 1, 50.0, 0.0, s2=0.8),
    run_of("gamma", 0, 50.0, 0.1, s1=0.7),
    run_of("gamma", 1, 25.0, 0.1, s2=0.6),
    run_of("gamma", 1, 50.0, 0.1, s2=0.1),  # another rate than that fold's choice
    run_of("gamma", 0, 50.0, 0.3, s1=0.1),  # another λ
]


def test_the_runs_of_a_selected_point_are_those_of_each_folds_choice() -> None:
    assert frontier_plots.runs_of(POINTS[-1], RUNS) == RUNS[2:4]
    assert frontier_plots.runs_of(POINTS[-2], RUNS) == RUNS[:2]


def test_the_frontier_has_its_families_and_the_comparators_of_its_rate(tmp_path: Path) -> None:
    text = frontier_plots.frontier_picture(POINTS, LOSSLESS, tmp_path / "frontier.svg").read_text()
    names = ("sp_sw_har", "gamma", "linear", "12-bit counts", "50 Hz", "below 4 bits", "selected in each fold")
    for shown in (*names, "lossless DPCM, 50 Hz", "best 12-bit model"):
        assert f">{shown}<" in text
    for absent in ("25 Hz", "xz", "lsq"):
        assert absent not in text
    assert len(text) < 100_000
    again = frontier_plots.frontier_picture(POINTS, LOSSLESS, tmp_path / "again.svg").read_text()
    assert again == text


def test_a_frontier_without_points_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GammawearError, match="needs points"):
        frontier_plots.frontier_picture([], [], tmp_path / "frontier.svg")


def test_subjects_are_paired_and_averaged_over_runs(tmp_path: Path) -> None:
    ours = [{"per_subject_macro_f1": subjects} for subjects in ({"s1": 0.8, "s2": 0.9}, {"s1": 0.9, "s3": 0.5})]
    twelve = [{"per_subject_macro_f1": {"s1": 0.87, "s2": 0.88}}]
    assert frontier_plots.subject_means(ours) == {"s1": pytest.approx(0.85), "s2": 0.9, "s3": 0.5}
    text = frontier_plots.subjects_picture(ours, twelve, ("ours", "12 bit"), tmp_path / "s.svg").read_text()
    assert "better for 1, worse for 1 of 2 people" in text
    assert ">s3<" not in text
    with pytest.raises(GammawearError, match="same folds"):
        frontier_plots.subjects_picture(ours, [], ("", ""), tmp_path / "none.svg")


def test_stored_results_become_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*POINTS, point("nonesuch", 4, 1.0, 0.5, model="attention")]
    (tmp_path / "frontier.json").write_text(json.dumps(rows))
    (tmp_path / "accuracy-sp_sw_har.jsonl").write_text("\n".join(json.dumps(run) for run in RUNS) + "\n")
    out = tmp_path / "plots"
    monkeypatch.setattr("sys.argv", ["frontier_plots", "--results", str(tmp_path), "--out", str(out)])
    frontier_plots.main()
    assert sorted(path.name for path in out.iterdir()) == ["frontier.svg", "per-subject-sp_sw_har.svg"]
    assert "nonesuch" not in (out / "frontier.svg").read_text()  # another network
    text = (out / "per-subject-sp_sw_har.svg").read_text()
    assert "mean difference -20.0 points" in text
    assert "gamma, coded, 30 bit/s and channel" in text


def test_a_learned_curve_is_drawn_over_its_data(tmp_path: Path) -> None:
    path = tmp_path / "curve.svg"
    frontier_plots.histogram_picture(load_bundle("wrist6"), walk(5000, 6, 8.0), ["acc_y", "gyro_x"], path)
    text = path.read_text()
    assert ">acc_y, g<" in text
    assert ">gyro_x, °/s<" in text
    assert "thresholds between 16 codes" in text
    assert len(text) < 100_000
