"""Fewer samples, in integers: the filter is what it says, blocks and gaps change nothing, and ticks stay true."""

import dataclasses
import itertools
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from factories import LABELS, codebook, sensor, tiny_bundle
from hypothesis import given
from hypothesis import strategies as st
from needed import need
from source_checks import check_source, read_all, stream
from test_device_emulator_replay import trace
from test_docs_wire_format import blocks, compiled
from vector_files import read_vector

from device_emulator.decimate import FACTORS, REACH, SHIFT, SIDE_TAPS, Decimated, _HalfBand, matched
from device_emulator.device import shared_encoder
from device_emulator.replay import MAX_GAP_MS, TAKE_GAP_MS, ReplaySource
from device_emulator.synthetic import SyntheticSource
from gammawear.wearables import WearableOptions, trace_sources, wearables
from models.datasets import Recording, load
from models.resample import resample
from protocol.broker_settings import BrokerSettings
from protocol.packet import Packet
from protocol.trace import Trace
from quantization.errors import CodebookError
from quantization.imu import ACC, ACC_GYRO
from quantization.sensor import Sensor

SP_SW_HAR = Path(__file__).parent.parent.parent / "shared" / "data" / "har" / "sp_sw_har.zip"
STAGES = {2: 1, 4: 2, 8: 3}
"""Stages of each factor."""


def part(adc_bits=16, *, signed=True, channels=("acc_x",)):
    offset = 0 if signed else 1 << (adc_bits - 1)
    return Sensor("p", channels, adc_bits, (0.001,) * len(channels), (offset,) * len(channels), signed)


def recorded(counts, *, rate_hz=100.0, one=None, gaps=None, label=None):
    """A source of these counts of one channel, ``[n]``."""
    counts = np.asarray(counts, dtype=np.int32).reshape(len(counts), -1)
    like = trace(len(counts), rate_hz=rate_hz, gaps=gaps, part=one or part())
    label = like.label if label is None else np.asarray(label, dtype=np.int16)
    return ReplaySource([dataclasses.replace(like, counts=counts, label=label)], loop=False)


def decimated(counts, factor, one=None):
    """``[n]`` counts through the decimator."""
    rows = stream(read_all(Decimated(recorded(counts, one=one), factor), 10**9, 4096))[0]
    return [row[0] for row in rows]


def by_the_formula(x, factor, low=-32768, high=32767):
    """One output after the other as docs/wire-format.md has it, in Python's own integers."""
    for _ in range(STAGES[factor]):
        last = len(x) - 1

        def at(i, x=x, last=last):
            return x[min(max(i, 0), last)]

        x = [
            min(
                high,
                max(
                    low,
                    (
                        512 * at(i)
                        + 310 * (at(i - 1) + at(i + 1))
                        - 73 * (at(i - 3) + at(i + 3))
                        + 19 * (at(i - 5) + at(i + 5))
                        + 512
                    )
                    // 1024,
                ),
            )
            for i in range(0, len(x), 2)
        ]
    return x


# -- the filter -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("adc_bits", range(8, 17))
def test_every_constant_comes_out_as_it_went_in(adc_bits, signed):
    one = part(adc_bits, signed=signed)
    for some in np.array_split(one.all_counts(), 8):
        held = np.tile(some, (60, 1))  # each count is a channel of its own, at rest
        for _ in range(max(STAGES.values())):
            held = _HalfBand(one).push(held)
            assert len(held) >= 1
            assert (held == some).all()


def test_accumulators_of_32_bits_suffice():
    taps = [1 << (SHIFT - 1), *(abs(tap) for tap in SIDE_TAPS for _ in "ab")]
    assert sum(taps) * 65535 + (1 << (SHIFT - 1)) < 2**27
    assert (1 << (SHIFT - 1)) + 2 * sum(SIDE_TAPS) == 1 << SHIFT
    # The worst there is, for a signed and an unsigned part: all taps' signs with both ends of the range.
    for signed, low in ((True, -32768), (False, 0)):
        signs = {distance: np.sign(tap) for distance, tap in zip((1, 3, 5), SIDE_TAPS, strict=True)}
        worst = [low + (65535 if signs.get(abs(i - 10), 1) > 0 else 0) for i in range(21)]
        for one in (worst, [2 * low + 65535 - x for x in worst]):
            assert decimated(one, 2, part(signed=signed)) == by_the_formula(one, 2, low, low + 65535)


def test_an_impulse_comes_out_symmetrical():
    for factor in FACTORS:
        response = {}
        for shift in range(factor):  # an impulse at every phase: together they are the response at the input's rate
            x = np.zeros(400 + factor, dtype=int)
            x[200 + shift] = 30000
            for m, y in enumerate(decimated(x, factor)):
                response[factor * m - (200 + shift)] = y
        reach = max(delay for delay, y in response.items() if y)
        assert 2 * REACH < reach <= REACH * (factor - 1) or (factor == 2 and reach == REACH)
        for delay in range(reach + factor):
            assert response[delay] == response[-delay]
        assert max(response.values()) == response[0]


def gain_db(factor, share):
    """Of a tone at ``share`` of the output rate, by its power in the output; the start and the end are left out."""
    n = 4096 * factor
    x = np.rint(30000 * np.sin(2 * np.pi * share / factor * np.arange(n) + 0.3)).astype(int)
    y = np.array(decimated(x, factor))[16:-16]
    # 1e-3 counts: where nothing at all is left
    return 20 * np.log10(np.sqrt(np.mean(y.astype(float) ** 2) + 1e-6) / (30000 / np.sqrt(2)))


@pytest.mark.parametrize(("factor", "dip_db"), [(2, 0.09), (4, 0.16), (8, 0.21)])
def test_tones_in_the_pass_band_stay(factor, dip_db):
    for share in np.linspace(0.02, 0.3, 15):
        assert -dip_db - 0.005 <= gain_db(factor, share) <= 0.03
    assert gain_db(factor, 0.4) == pytest.approx(-1.57, abs=0.06)


@pytest.mark.parametrize("factor", FACTORS)
def test_tones_in_the_stop_band_go(factor):
    worst = max(gain_db(factor, share) for share in np.linspace(0.7, factor / 2, 41))
    assert -46 < worst < -40


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("adc_bits", [8, 12, 16])
def test_overshoot_saturates(adc_bits, signed):
    one = part(adc_bits, signed=signed)
    x = [one.count_min] * 40 + [one.count_max] * 40
    for factor in FACTORS:
        y = decimated(x, factor, one)
        assert min(y) == one.count_min
        assert max(y) == one.count_max
        assert y == by_the_formula(x, factor, one.count_min, one.count_max)
    assert max(by_the_formula(x, 2, -(10**9), 10**9)) > one.count_max, "it would have been beyond"


@given(
    x=st.lists(st.integers(-32768, 32767), min_size=1, max_size=90),
    factor=st.sampled_from(FACTORS),
    at_a_time=st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_it_is_the_formula_whatever_is_asked_for_at_a_time(x, factor, at_a_time):
    label = np.arange(len(x)) % len(LABELS)
    source = Decimated(Chopped(recorded(x, label=label), at_a_time[::-1]), factor)
    y, marked = [], []
    for samples in itertools.cycle(at_a_time):
        block = source.read(samples)
        assert len(block) <= samples
        if len(block) == 0:
            break
        y += block.counts[:, 0].tolist()
        marked += block.label.tolist()
    assert y == by_the_formula(x, factor)
    assert len(y) == -(-len(x) // factor)
    assert marked == label[::factor].tolist()


class Chopped:
    """A source that gives less than it is asked for."""

    def __init__(self, source, at_most):
        self._source, self._at_most = source, itertools.cycle(at_most)
        self.sensor, self.rate_hz, self.kind = source.sensor, source.rate_hz, source.kind
        self.labels, self.subject = source.labels, source.subject

    def read(self, samples):
        return self._source.read(min(samples, next(self._at_most)))


# -- as a source ------------------------------------------------------------------------------------------------------

SOURCES = {
    "by 2": lambda: Decimated(ReplaySource([trace(700, rate_hz=104.0)], loop=False), 2),
    "by 4, looped": lambda: Decimated(ReplaySource([trace(701, rate_hz=104.0)], loop=True), 4),
    "by 8, takes": lambda: Decimated(
        ReplaySource([trace(300, seed=1, rate_hz=100.0), trace(77, seed=2, rate_hz=100.0)], loop=True), 8
    ),
    "gaps": lambda: Decimated(
        ReplaySource([trace(900, rate_hz=100.0, gaps={1: 40, 2: 10, 3: 10, 500: 9000, 611: 11})], loop=True), 4
    ),
    "one sample": lambda: Decimated(ReplaySource([trace(1, rate_hz=100.0)], loop=True), 8),
    "16 bits": lambda: Decimated(ReplaySource([trace(300, part=sensor(ACC, "bmi270"), rate_hz=50.0)], loop=False), 2),
    "generated": lambda: Decimated(SyntheticSource(sensor(), rate_hz=100.0, seed=3), 4),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES.keys())
def test_every_source_passes_the_checks(make):
    check_source(make, samples=500)


def times_ms(source):
    """(exact time, count of the first channel, label) of every sample as a device dates it, and the gaps' sum."""
    period = 1000 / Fraction(source.rate_hz).limit_denominator(1_000_000)
    now, found = Fraction(0), []
    while len(block := source.read(17)):
        now += block.gap_ms
        for count, label in zip(block.counts[:, 0].tolist(), block.label.tolist(), strict=True):
            found.append((now, count, label))
            now += period
    return found


@given(
    gaps=st.dictionaries(st.integers(1, 199), st.integers(1, 3000), max_size=12),
    rate=st.sampled_from([49.87, 52.0, 100.0, 104.0, 1000.0]),
    factor=st.sampled_from(FACTORS),
)
def test_every_output_has_the_time_and_the_label_of_the_sample_in_its_middle(gaps, rate, factor):
    x = np.random.default_rng(0).integers(-9, 9, 200)
    label = np.arange(200) % len(LABELS)
    inputs = times_ms(recorded(x, rate_hz=rate, gaps=gaps, label=label))
    outputs = times_ms(Decimated(recorded(x, rate_hz=rate, gaps=gaps, label=label), factor))
    instants = np.array([float(time) for time, _, _ in inputs])
    times = np.array([float(time) for time, _, _ in outputs])
    marked = np.array([one for _, _, one in outputs])
    period, rounding = 1000 * factor / rate, 0.5 + 1e-4

    distance = np.abs(times[:, None] - instants)
    assert (distance.min(axis=1) <= rounding).all(), "an output stands where an input stood, but for whole milliseconds"
    sure = (distance <= rounding).sum(axis=1) == 1
    assert (marked == label[distance.argmin(axis=1)])[sure].all()
    assert (np.diff(times) >= period - 1e-6).all(), "never nearer than a period"
    covering = np.searchsorted(times, instants + rounding, side="right") - 1
    assert (covering >= 0).all()
    assert (instants < times[covering] + period + rounding).all(), "nothing is left out but what a sample covers"


def test_a_gap_starts_it_anew():
    x = [1000] * 40 + [-1000] * 40
    rows, _, gaps = stream(read_all(Decimated(recorded(x, gaps={40: 500}), 4), 100, 7))
    assert [row[0] for row in rows] == [1000] * 10 + [-1000] * 10, "nothing of before is in what comes after"
    assert gaps == [(10, 500)]
    joined = decimated(x, 4)
    assert not set(joined) <= {1000, -1000}, "without the gap, the step is smoothed"


def test_a_short_gap_leaves_no_two_samples_nearer_than_a_period():
    # 101 samples at 100 Hz by 4: the last output, at 1000 ms, lasts to 1040 ms. The next stretch begins at 1020 ms, and
    # its first two samples are left out.
    x = np.arange(201)
    y = times_ms(Decimated(recorded(x, gaps={101: 10}), 4))
    assert [float(time) for time, _, _ in y[24:28]] == [960, 1000, 1040, 1080]
    rest = by_the_formula(list(range(103, 201)), 4)
    assert [count for _, count, _ in y[26:]] == rest


def test_gaps_between_takes_are_as_long_as_they_were():
    takes = [trace(30, rate_hz=100.0), trace(20, seed=1, rate_hz=100.0)]
    _, _, gaps = stream(read_all(Decimated(ReplaySource(takes, loop=True), 4), 26, 9))
    # 30 samples give 8, which last 20 ms longer than they did.
    assert gaps == [(8, TAKE_GAP_MS - 20), (13, TAKE_GAP_MS), (21, TAKE_GAP_MS - 20)]
    long = ReplaySource([trace(64, rate_hz=100.0, gaps={32: 10 * MAX_GAP_MS})], loop=False)
    assert stream(read_all(Decimated(long, 8), 99, 9))[2] == [(4, MAX_GAP_MS)]


def test_no_rounding_adds_up_over_gaps():
    # At 104 Hz by 8, each stretch of 13 samples (125 ms) gives 2 samples that last 153.8 ms.
    n = 13 * 400
    one = trace(n, rate_hz=104.0, gaps={13 * i: 50 for i in range(1, 400)}, part=part())
    source = Decimated(ReplaySource([one], loop=False), 8)
    last = times_ms(source)[-1][0]
    replayed = times_ms(ReplaySource([one], loop=False))[13 * 399 + 8][0]
    assert abs(last - replayed) <= Fraction(3, 5)


@pytest.mark.parametrize(("rate", "factor"), [(100.0, 3), (100.0, 1), (100.0, 16), (4.0, 8)])
def test_what_cannot_be_decimated(rate, factor):
    with pytest.raises(ValueError, match="cannot decimate"):
        Decimated(recorded([1, 2], rate_hz=rate), factor)


@pytest.mark.parametrize(
    ("rate", "wanted", "factor"),
    [
        (50.0, 25.0, 2), (52.0, 25.0, 2), (100.0, 25.0, 4), (104.0, 25.0, 4), (200.0, 25.0, 8), (208.0, 25.0, 8),
        (50.0, 12.5, 4), (104.0, 12.5, 8), (26.0, 12.5, 2), (52.6, 25.0, None), (47.4, 25.0, None),
        (25.0, 25.0, None), (26.0, 25.0, None), (75.0, 25.0, None), (400.0, 25.0, None), (12.5, 25.0, None),
    ],
)  # fmt: skip
def test_rates_that_match(rate, wanted, factor):
    source = recorded([1, 2, 3], rate_hz=rate)
    found = matched(source, wanted)
    if factor is None:
        assert found is source
    else:
        assert isinstance(found, Decimated)
        assert (found.factor, found.rate_hz) == (factor, rate / factor)


# -- as documented ----------------------------------------------------------------------------------------------------


def test_the_vectors():
    x = np.frombuffer(read_vector("decimate-input.hex"), "<i2").tolist()
    for factor in FACTORS:
        expected = np.frombuffer(read_vector(f"decimate-{factor}.hex"), "<i2").tolist()
        assert decimated(x, factor, part(12)) == expected == by_the_formula(x, factor, -2048, 2047)
    assert {-2048, 2047} <= set(np.frombuffer(read_vector("decimate-2.hex"), "<i2").tolist())


MAIN = """
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    struct stage s[3] = {{{0}, 0}};
    int32_t count, rest[5], low, high;
    int stages, n;
    if (argc != 4) return 2;
    stages = atoi(argv[1]); low = atoi(argv[2]); high = atoi(argv[3]);
    while (fread(&count, sizeof count, 1, stdin) == 1) {
        if (count == INT32_MIN) {
            n = flush(s, stages, rest, low, high);
            fwrite(rest, sizeof rest[0], (size_t)n, stdout);
        } else if (decimate(s, stages, &count, low, high))
            fwrite(&count, sizeof count, 1, stdout);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def in_c(tmp_path_factory):
    """The documented C as a function: stretches, factor and part to counts."""
    program = compiled(dict(blocks("c"))["decimate.c"] + MAIN, tmp_path_factory.mktemp("c"))

    def run(stretches, factor, one):
        end = [-(2**31)]
        given = np.array([x for stretch in stretches for x in [*stretch, *end]], dtype="<i4")
        arguments = map(str, (STAGES[factor], one.count_min, one.count_max))
        done = subprocess.run([program, *arguments], input=given.tobytes(), capture_output=True, check=True)
        return np.frombuffer(done.stdout, "<i4").tolist()

    return run


def test_the_c_gives_the_vectors(in_c):
    x = np.frombuffer(read_vector("decimate-input.hex"), "<i2").tolist()
    for factor in FACTORS:
        found = np.array(in_c([x, x], factor, part(12)), dtype="<i2")
        assert found.tobytes() == 2 * read_vector(f"decimate-{factor}.hex"), "twice: it begins anew after a flush"


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("one", [part(16), part(16, signed=False), part(8), part(12)], ids=lambda p: str(p.count_max))
def test_the_c_is_what_we_do(in_c, factor, one):
    rng = np.random.default_rng(factor)
    ends = [one.count_min, one.count_max]
    stretches = [
        np.where(rng.random(n) < 0.3, rng.choice(ends, n), rng.integers(one.count_min, one.count_max + 1, n)).tolist()
        for n in (*range(1, 60), 3000)
    ]
    ours = [y for stretch in stretches for y in decimated(stretch, factor, one)]
    assert in_c(stretches, factor, one) == ours


# -- with recordings, and as a device ---------------------------------------------------------------------------------


def test_it_is_near_what_training_sees():
    """Steps of a walk, harmonics of a few Hz: training's filter and this one agree within a count or two."""
    t = np.arange(0, 30, 0.01)
    g = 0.3 * np.sin(2 * np.pi * 1.9 * t) + 0.1 * np.sin(2 * np.pi * 3.8 * t + 1) + 0.05 * np.sin(2 * np.pi * 5.7 * t)
    one = sensor(("acc_x",))
    whole = Recording("d", "s", "r", ("acc_x",), ("A",), t, g[:, None].astype(np.float32), np.zeros(len(t), np.int16))
    (segment,) = resample(whole, 25.0)
    ours = np.array(decimated(one.to_counts(g[:, None])[:, 0], 4, one))
    theirs = one.to_counts(segment.values)[:, 0]
    assert len(ours) == len(theirs)
    assert np.abs(ours - theirs)[10:-10].max() <= 2
    assert np.ptp(ours) > 150


def test_it_is_near_what_training_sees_on_recordings():
    """docs/wire-format.md has the figures of everybody."""
    need(SP_SW_HAR.exists(), str(SP_SW_HAR))
    differences, signals = [], []
    for recording in load("sp_sw_har", SP_SW_HAR, ["s01"]):
        one = sensor(recording.channels)
        for fine, coarse in zip(resample(recording, 100.0), resample(recording, 25.0), strict=True):
            counts = one.to_counts(fine.values)
            ticks = 10 * np.arange(len(counts), dtype=np.int64)
            take = Trace(one, 100.0, counts, ticks, fine.label, LABELS, source="dataset")
            source = Decimated(ReplaySource([take], loop=False), 4)
            ours = np.array(stream(read_all(source, 10**6, 512))[0])
            theirs = one.to_counts(coarse.values)
            n = min(len(ours), len(theirs))
            assert abs(len(ours) - len(theirs)) <= 1
            differences.append(ours[:n] - theirs[:n])
            signals.append(theirs - theirs.mean(axis=0))
    difference, signal = np.concatenate(differences), np.concatenate(signals)
    assert (np.abs(difference.mean(axis=0)) < 0.1).all()
    assert (difference.std(axis=0) < 0.1 * signal.std(axis=0)).all()


def test_a_device_at_a_quarter_of_its_rate(tmp_path, capsys):
    part_of_six = sensor(ACC_GYRO)
    one = dataclasses.replace(trace(1000, rate_hz=100.0, part=part_of_six), source="device")
    one.save(tmp_path / "walk.gwtrace")
    bundle = tiny_bundle(tmp_path, book=codebook(rate_hz=25.0), window=25, stride=12)
    sources = trace_sources([tmp_path / "walk.gwtrace"] * 2, loop=False)
    devices = [p.device for p in wearables(sources, bundle, BrokerSettings(), WearableOptions())]
    said = capsys.readouterr().err
    assert said == "devices decimate 100 Hz by 4 to 25 Hz before they quantize (group delay 150 ms)\n", "once for both"

    device = devices[0]
    assert device.status().rate_hz == 25.0
    assert device.packet_period_s == 1.0
    emissions = list(iter(device.next_packet, None))
    codes = np.concatenate([Packet.from_bytes(e.packet).codes(bundle.codebook) for e in emissions])
    x = np.array([by_the_formula(column, 4, -2048, 2047) for column in one.counts.T.tolist()]).T
    assert codes.tolist() == device._program.encoder.encode(x.astype(np.int32)).tolist()
    assert [e.tick_ms for e in emissions] == list(range(0, 10_000, 1000))
    # The truth is where it was: every run of the device begins where the trace's does, to the next sample at 25 Hz.
    runs = [run for emission in emissions for run in emission.labels]
    for run in runs:
        middle = one.label[run.from_tick // 10 : run.to_tick // 10 : 4]
        assert {LABELS[i] for i in middle} == {run.activity}
    assert sum(run.to_tick - run.from_tick for run in runs) == 40 * int((one.label[::4] >= 0).sum())


def test_generated_wearers_may_be_sampled_faster(tmp_path, capsys):
    bundle = tiny_bundle(tmp_path, book=codebook(rate_hz=25.0), window=25, stride=12)
    expected = Decimated(SyntheticSource(bundle.sensor, rate_hz=104.0, seed=1), 4).read(26)
    (publisher,) = wearables([SyntheticSource(bundle.sensor, rate_hz=104.0, seed=1)], bundle, BrokerSettings(),
                             WearableOptions())  # fmt: skip
    assert publisher.device.status().rate_hz == 26.0
    assert "104 Hz by 4 to 26 Hz" in capsys.readouterr().err
    emission = publisher.device.next_packet()
    assert emission.samples == 26
    codes = Packet.from_bytes(emission.packet).codes(bundle.codebook)
    assert (
        codes[: len(expected)].tolist()
        == shared_encoder(bundle.codebook, bundle.sensor).encode(expected.counts).tolist()
    )


def test_other_rates_are_refused_as_before(tmp_path, capsys):
    bundle = tiny_bundle(tmp_path, book=codebook(rate_hz=25.0), window=25, stride=12)
    for rate in (75.0, 12.5, 60.0):
        with pytest.raises(CodebookError, match="resample before quantization"):
            wearables([SyntheticSource(bundle.sensor, rate_hz=rate)], bundle, BrokerSettings(), WearableOptions())
    wearables([SyntheticSource(bundle.sensor, rate_hz=25.0)], bundle, BrokerSettings(), WearableOptions())
    assert capsys.readouterr().err == "", "nothing is said where nothing is done"
