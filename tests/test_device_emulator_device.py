"""The firmware loop: what goes in comes out, at the right ticks, in packets that fit."""

import itertools
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from factories import LABELS, codebook, sensor
from hypothesis import given, settings
from hypothesis import strategies as st
from test_device_emulator_replay import trace

from device_emulator.device import MAX_ERROR_CHARS, Device, shared_encoder
from device_emulator.replay import ReplaySource
from device_emulator.source import Block
from gateway.reassembly import Joint, Piece, Reassembler
from protocol.messages import Config, Label, Status
from protocol.packet import HEADER_BYTES, MAX_PACKET_BYTES, MAX_PAYLOAD_BYTES, TICK_MODULUS, Coder, Packet
from quantization.entropy import statistics_from_codes
from quantization.errors import CodebookError, MessageError, SensorError
from quantization.imu import ACC, ACC_GYRO
from quantization.sensor import Axes


def device(source, book=None, **options):
    book = book or codebook(source.sensor.channels, rate_hz=source.rate_hz)
    return Device("w1", source, shared_encoder(book, source.sensor), **options)


def replay(*traces, loop=False):
    return ReplaySource(traces or [trace(500)], loop=loop)


def emissions(one, most=100_000):
    found = []
    while len(found) < most and (emission := one.next_packet()) is not None:
        found.append(emission)
    return found


class Still:
    """A part at rest for ever; cheap."""

    kind = "synthetic"
    labels = LABELS
    subject = ""

    def __init__(self, rate_hz=52.0, part=None):
        self.rate_hz = rate_hz
        self.sensor = part or sensor()

    def read(self, samples):
        return Block(np.zeros((samples, len(self.sensor.channels)), np.int32), np.zeros(samples, np.int16))


@given(data=st.data())
def test_packets_decode_to_the_codes_of_the_encoder(data):
    channels = data.draw(st.sampled_from([ACC, ACC_GYRO, ("acc_x",)]))
    parts = ["generic12", "bmi270"] + ["lis2dh12"] * (channels != ACC_GYRO)
    part = sensor(channels, data.draw(st.sampled_from(parts)))
    rate = data.draw(st.sampled_from([20.0, 25.6, 50.0, 52.0, 100.0]))
    book = codebook(channels, bits=data.draw(st.integers(1, 8)), rate_hz=rate)
    gaps = data.draw(st.dictionaries(st.integers(1, 299), st.integers(100, 20_000), max_size=5))
    one = trace(data.draw(st.integers(1, 300)), rate_hz=rate, gaps=gaps, part=part, seed=data.draw(st.integers(0, 99)))
    axes = Axes((2, -1, 3)) if len(channels) > 1 else Axes()
    limit = data.draw(st.integers(8, MAX_PAYLOAD_BYTES))
    packet_s = data.draw(st.floats(0.01, 20))
    emulated = device(replay(one), book, axes=axes, packet_s=packet_s, max_payload_bytes=limit)

    found = emissions(emulated)
    packets = [Packet.from_bytes(emission.packet) for emission in found]
    codes = np.concatenate([packet.codes(book) for packet in packets])
    assert (codes == shared_encoder(book, part).encode(axes.apply(one.counts, part))).all()
    assert [packet.sequence for packet in packets] == list(range(len(packets)))
    assert sum(emission.samples for emission in found) == len(one.counts) == emulated.samples_made
    assert sum(len(emission.packet) for emission in found) == emulated.bytes_made
    for emission, packet in zip(found, packets, strict=True):
        assert len(emission.packet) <= HEADER_BYTES + limit <= MAX_PACKET_BYTES
        assert packet.samples == emission.samples <= max(1, packet_s * rate + 1e-5)
        assert packet.tick_ms == emission.tick_ms
    due = [emission.due_ms for emission in found]
    assert due == sorted(due)


@given(data=st.data())
def test_labels_cover_every_labelled_sample_once(data):
    one = trace(data.draw(st.integers(1, 300)), seed=data.draw(st.integers(0, 99)), gaps={150: 777})
    source = replay(one)
    found = emissions(device(source, packet_s=data.draw(st.floats(0.1, 3)), start_tick=TICK_MODULUS - 3000))
    truth = []
    for emission in found:
        assert all(run.from_tick != run.to_tick for run in emission.labels)
        for offset in range(emission.samples):
            tick = (emission.tick_ms + 20 * offset) % TICK_MODULUS
            inside = [
                run.activity
                for run in emission.labels
                if (tick - run.from_tick) % TICK_MODULUS < (run.to_tick - run.from_tick) % TICK_MODULUS
            ]
            assert len(inside) <= 1
            truth.append(inside[0] if inside else None)
    assert truth == [None if i < 0 else LABELS[i] for i in one.label]


def test_runs_are_merged_within_a_packet():
    one = trace(100)
    one.label[:] = 1
    one.label[70:80] = -1
    first, second = emissions(device(replay(one)))
    assert first.labels == (("STANDING_UP", 0, 1000),)
    assert second.labels == (("STANDING_UP", 1000, 1400), ("STANDING_UP", 1600, 2000))
    for run in second.labels:
        assert Label(activity=run.activity, from_tick=run.from_tick, to_tick=run.to_tick).from_ms is None


@pytest.mark.parametrize("rate", [52.0, 25.6, 49.87, 104.0])
def test_ticks_are_exact_for_hours(rate):
    emulated = device(Still(rate), packet_s=1.0)
    exact = Fraction(str(rate))
    sample = 0
    for emission in emissions(emulated, 3 * 3600):
        assert abs(emission.tick_ms - Fraction(1000 * sample) / exact) <= Fraction(1, 2)
        sample += emission.samples
        assert abs(emission.due_ms - Fraction(1000 * (sample - 1)) / exact) <= Fraction(1, 2)
    assert sample / rate > 2 * 3600


def test_tick_and_sequence_wrap_and_time_goes_on():
    start = TICK_MODULUS - 4_000_000
    emulated = device(Still(50.0), start_tick=start)
    found = emissions(emulated, 4100)
    packets = [Packet.from_bytes(emission.packet) for emission in found]
    assert [packet.sequence for packet in packets[4094:4098]] == [4094, 4095, 0, 1]
    assert [packet.tick_ms for packet in packets[3999:4002]] == [TICK_MODULUS - 1000, 0, 1000]
    assert found[4000].due_ms == 4_000_980
    assert found[3999].labels == (("SEATED", TICK_MODULUS - 1000, 0),)
    assert emulated.packets_made == 4100


def test_a_gap_ends_a_packet_and_is_in_the_ticks():
    found = emissions(device(replay(trace(120, gaps={70: 3000}))))
    assert [(one.tick_ms, one.samples, one.due_ms) for one in found] == [
        (0, 50, 980),
        (1000, 20, 1380),
        (4400, 50, 5380),
    ]
    assert found[1].labels[-1].to_tick <= 1400


def test_four_bits_cost_little_more_than_four_bits():
    found = emissions(device(Still(52.0)), 10)
    for emission in found:
        assert emission.samples == 52
        assert len(emission.packet) * 8 / (52 * 6) <= 4.6


@pytest.mark.parametrize(("mtu_payload", "samples"), [(232, 52), (100, 33), (8, 2), (3, 1)])
def test_packets_are_cut_to_the_link(mtu_payload, samples):
    assert device(Still(), max_payload_bytes=mtu_payload).next_packet().samples == samples


def test_a_long_packet_is_what_fits_and_a_short_one_is_one_sample():
    assert device(Still(), packet_s=60).next_packet().samples == 77
    assert device(Still(), packet_s=0.001).next_packet().samples == 1
    assert device(Still(), packet_s=60).packet_period_s == pytest.approx(77 / 52)


def test_saturated_samples_are_counted():
    one = trace(100)
    one.counts[:] = 0
    one.counts[10, 0] = sensor().count_max
    one.counts[11, :] = sensor().count_min
    emulated = device(replay(one))
    emissions(emulated)
    assert emulated.saturated_samples == 2


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_at_the_start():
    source = Still()
    other = codebook(ACC, rate_hz=52.0)
    with pytest.raises(CodebookError, match="the encoder is for"):
        Device("w1", source, shared_encoder(other, sensor(ACC)))
    with pytest.raises(CodebookError, match="resample before quantization"):
        device(source, codebook(rate_hz=100.0))
    with pytest.raises(CodebookError, match="one sample of 6 channels"):
        device(source, max_payload_bytes=2)
    with pytest.raises(SensorError, match="triples"):
        device(Still(part=sensor(("acc_x", "acc_y"))), axes=Axes((2, 1, 3)))
    with pytest.raises(MessageError, match="not a device id"):
        Device("a/b", source, shared_encoder(codebook(rate_hz=52.0), sensor()))
    for options in ({"packet_s": 0}, {"start_tick": -1}, {"start_tick": TICK_MODULUS}, {"max_payload_bytes": 233}):
        with pytest.raises(ValueError, match="packet_s"):
            device(source, **options)


@pytest.mark.parametrize("name", ["unknown", "", "a/b", "ü"])
def test_an_activity_that_could_not_be_sent_is_refused_at_the_start(name):
    with pytest.raises(MessageError, match="name of an activity"):
        device(replay(trace(30, labels=(name,))))


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("book_rate", [49.6, 54.7])
def test_five_per_cent_off_the_rate_are_taken(book_rate):
    assert device(Still(52.0), codebook(rate_hz=book_rate)).next_packet() is not None


def test_a_codebook_takes_effect_at_the_next_packet():
    old, new = codebook(), codebook(bits=3)
    one = trace(500)
    emulated = device(replay(one), old)
    found = emissions(emulated, 3)
    assert emulated.apply_config(Config.with_codebook(new))
    assert emulated.codebook == old, "not before the next packet"
    revision = emulated.revision
    found += emissions(emulated)
    assert emulated.codebook == new
    assert emulated.revision == revision + 1
    packets = [Packet.from_bytes(emission.packet) for emission in found]
    assert [packet.short_digest for packet in packets] == [old.short_digest] * 3 + [new.short_digest] * 7
    assert [packet.sequence for packet in packets] == list(range(10))
    assert [packet.tick_ms for packet in packets] == [n * 1000 for n in range(10)]
    part = sensor()
    after = np.concatenate([packet.codes(new) for packet in packets[3:]])
    assert (after == shared_encoder(new, part).encode(one.counts[150:])).all()
    assert emulated.status().codebook == new.digest.hex()


def test_a_switch_to_shorter_packets_loses_no_sample():
    # A gap makes the device hold a block that it read for the longer packet.
    one = trace(400, gaps={60: 1000})
    emulated = device(replay(one), codebook(), packet_s=1.5)
    found = emissions(emulated, 1)
    assert emulated.apply_config(Config.with_codebook(codebook(bits=8)))
    found += emissions(emulated)
    assert [emission.samples for emission in found][:3] == [60, 38, 38]
    assert sum(emission.samples for emission in found) == 400
    assert [emission.tick_ms for emission in found][:3] == [0, 2200, 2200 + 760]


def test_axes_are_applied_and_the_codebook_stays():
    one = trace(100)
    emulated = device(replay(one))
    assert emulated.apply_config(Config(axes=(-2, 1, 3)))
    turned = Axes((-2, 1, 3)).apply(one.counts, sensor())
    packet = Packet.from_bytes(emulated.next_packet().packet)
    assert (packet.codes(codebook()) == shared_encoder(codebook(), sensor()).encode(turned[:50])).all()
    assert emulated.status().axes == (-2, 1, 3)
    assert emulated.apply_config(Config.with_codebook(codebook(bits=2)))
    emulated.next_packet()
    assert emulated.axes == Axes((-2, 1, 3))


def test_the_last_of_several_configurations_counts():
    emulated = device(Still(50.0))
    assert emulated.apply_config(Config.with_codebook(codebook(bits=2)))
    assert emulated.apply_config(Config(axes=(3, 2, 1)))
    emulated.next_packet()
    assert (emulated.codebook, emulated.axes) == (codebook(bits=2), Axes((3, 2, 1)))
    assert emulated.apply_config(Config.with_codebook(codebook(bits=3)))
    assert emulated.apply_config(Config.with_codebook(codebook(bits=2)))
    revision = emulated.revision
    emulated.next_packet()
    assert emulated.codebook == codebook(bits=2)
    assert emulated.revision <= revision + 1


def test_what_runs_already_changes_nothing():
    emulated = device(Still(50.0))
    assert emulated.apply_config(Config.with_codebook(codebook()))
    assert emulated.apply_config(Config())
    emulated.next_packet()
    assert emulated.revision == 0


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (Config(codebook="AAAA"), "codebook"),
        (Config(codebook="%%%"), "codebook"),
        (Config.with_codebook(codebook(ACC)), "the codebook is for acc_x, acc_y, acc_z; the sensor gives"),
        (Config.with_codebook(codebook(rate_hz=100.0)), "100 Hz; this device samples at 50 Hz"),
        (Config(axes=(1, 1, 3)), "signed permutation"),
        # The codebook is good, the axes are not: neither is taken.
        (Config(codebook=Config.with_codebook(codebook(bits=2)).codebook, axes=(0, 0, 0)), "signed permutation"),
    ],
)
def test_a_bad_configuration_keeps_the_old_and_is_said(config, match):
    emulated = device(Still(50.0))
    emulated.next_packet()
    assert not emulated.apply_config(config)
    status = Status.parse(emulated.status().to_json())
    assert match in status.error
    assert len(status.error) <= MAX_ERROR_CHARS
    assert status.codebook == codebook().digest.hex()
    assert emulated.revision == 1
    packet = Packet.from_bytes(emulated.next_packet().packet)
    assert (packet.short_digest, packet.sequence) == (codebook().short_digest, 1)
    assert emulated.apply_config(Config(axes=(1, 2, 3)))
    assert emulated.status().error is None
    assert emulated.revision == 2


def test_a_long_reason_is_cut_to_what_status_holds():
    emulated = device(Still(50.0))
    emulated.refuse_config(MessageError("json", "x" * 1000))
    assert len(Status.parse(emulated.status().to_json()).error) == MAX_ERROR_CHARS


def test_status_says_what_the_device_is():
    emulated = device(replay(trace(200)))
    emissions(emulated, 2)
    assert emulated.status(dropped=3, time_ms=5) == Status(
        state="online",
        source="dataset",
        codebook=codebook().digest.hex(),
        rate_hz=50.0,
        sensor="generic12 ±8 g",
        adc_bits=12,
        channels=list(ACC_GYRO),
        axes=(1, 2, 3),
        packets=2,
        dropped=3,
        time_ms=5,
    )


# -- entropy coding ----------------------------------------------------------------------------------------------------


def coded(book, *blocks):
    """The codebook with contexts that were counted in these blocks of counts."""
    encoder = shared_encoder(book, sensor(book.channels))
    return replace(book, contexts=statistics_from_codes([encoder.encode(block) for block in blocks], book.bits))


def wandering(samples, *, seed=0, gaps=None, wild=0):
    """A trace of slow movement, and so many samples of noise at its end."""
    one = trace(samples, seed=seed, gaps=gaps or {})
    rng = np.random.default_rng(seed)
    low, high = sensor().count_min, sensor().count_max
    calm = np.cumsum(rng.normal(scale=(high - low) / 300, size=one.counts.shape), axis=0)
    one.counts[:] = np.clip(calm, low, high).astype(np.int32)
    if wild:
        one.counts[-wild:] = rng.integers(low, high + 1, size=(wild, one.counts.shape[1]))
    return one


def test_a_device_with_contexts_makes_shorter_packets():
    one = wandering(500)
    book = coded(codebook(), one.counts)
    plainly, short = emissions(device(replay(one))), emissions(device(replay(one), book))
    assert [emission.tick_ms for emission in short] == [emission.tick_ms for emission in plainly]
    packets = [Packet.from_bytes(emission.packet) for emission in short]
    assert {packet.coder for packet in packets} == {Coder.ENTROPY}
    assert sum(len(packet.payload) for packet in packets) < 500 * 3 * 0.6
    codes = np.concatenate([packet.codes(book) for packet in packets])
    assert (codes == shared_encoder(book, sensor()).encode(one.counts)).all()


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_coded_packets_of_any_length_lose_nothing(data):
    gaps = data.draw(st.dictionaries(st.integers(1, 899), st.integers(5, 500).map(lambda n: 20 * n), max_size=3))
    one = wandering(900, seed=data.draw(st.integers(0, 20)), gaps=gaps, wild=data.draw(st.sampled_from([0, 300])))
    book = coded(codebook(), one.counts[:600])
    limit = data.draw(st.integers(3, MAX_PAYLOAD_BYTES))
    packet_s = data.draw(st.floats(0.01, 40))
    emulated = device(replay(one), book, packet_s=packet_s, max_payload_bytes=limit)
    found = emissions(emulated)
    packets = [Packet.from_bytes(emission.packet) for emission in found]
    codes = np.concatenate([packet.codes(book) for packet in packets])
    assert (codes == shared_encoder(book, sensor()).encode(one.counts)).all()
    assert emulated.samples_made == 900
    assert emulated.bytes_made == sum(len(emission.packet) for emission in found)
    assert max(len(packet.payload) for packet in packets) <= limit
    assert max(packet.samples for packet in packets) <= max(1, packet_s * 50 + 1e-5)
    elapsed = np.cumsum([0, *one_sample_steps(one)])
    first = np.cumsum([0, *[emission.samples for emission in found]])
    assert [emission.tick_ms for emission in found] == elapsed[first[:-1]].tolist()
    assert sum(len(emission.labels) > 0 for emission in found) > 0


def one_sample_steps(one):
    return [*np.diff(one.tick_ms).tolist(), 20]


def test_a_coded_packet_holds_up_to_1024_samples():
    part = sensor()
    book = coded(codebook(rate_hz=52.0), np.zeros((2000, 6), np.int32))
    emulated = Device("w1", Still(), shared_encoder(book, part), packet_s=60)
    assert emulated.next_packet().samples == 1024
    assert emulated.packet_period_s == pytest.approx(1024 / 52)
    assert device(Still(), book, packet_s=10).next_packet().samples == 520


def test_what_does_not_fit_begins_the_next_packet():
    one = wandering(1000, wild=200)
    book = coded(codebook(), one.counts[:800])
    found = emissions(device(replay(one), book, packet_s=10))
    packets = [Packet.from_bytes(emission.packet) for emission in found]
    assert packets[0].samples > 77, "more than plain packing holds"
    assert packets[-2].samples >= 77, "noise goes as plain packing has it"
    for packet, after in itertools.pairwise(packets):
        assert after.tick_ms == packet.tick_ms + 20 * packet.samples


def test_a_switch_to_contexts_and_back():
    one = wandering(600)
    book = coded(codebook(), one.counts)
    emulated = device(replay(one), packet_s=3)
    samples = [emulated.next_packet().samples]
    emulated.apply_config(Config.with_codebook(book))
    samples.append(emulated.next_packet().samples)
    emulated.apply_config(Config.with_codebook(codebook()))
    found = emissions(emulated)
    assert samples == [77, 150]
    assert sum(emission.samples for emission in found) == 600 - 227
    assert emulated.packets_made == 2 + len(found)


def test_a_gateway_reassembles_what_a_device_codes():
    """From counts to windows: losses in between are gaps, whatever their packets' lengths."""
    one = wandering(3000, wild=150)
    book = coded(codebook(), one.counts[:2000])
    found = emissions(device(replay(one), book, packet_s=4.0))
    assert len({emission.samples for emission in found}) > 2, "packets of several lengths"
    bundle = SimpleNamespace(codebook=book)
    lost = {3, 7, 8}
    line, placed = Reassembler(), []
    for number, emission in enumerate(found):
        if number in lost:
            continue
        packet = Packet.from_bytes(emission.packet)
        codes = packet.codes(book)
        received_ns = 10**18 + emission.due_ms * 10**6
        placed += line.push(Piece(bundle, codes, packet.sequence, packet.tick_ms, 20.0, received_ns, hash(packet)))
        placed += line.expire(received_ns + 400 * 10**6)
    assert (line.losses.lost, line.losses.restarts, line.losses.unplaced) == (3, 0, 0)
    assert line.losses.samples_missing == sum(found[number].samples for number in lost)
    assert [piece.joint for piece in placed].count(Joint.GAP) == 2
    codes = np.concatenate([piece.codes for piece in placed])
    kept = np.concatenate([np.full(emission.samples, n not in lost) for n, emission in enumerate(found)])
    assert (codes == shared_encoder(book, sensor()).encode(one.counts)[kept]).all()
