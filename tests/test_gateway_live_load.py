"""What the page costs, and that it keeps no more the longer it runs. ``benchmarks/page.py`` measures at real pace."""

from __future__ import annotations

import time

from stack import note
from test_gateway_live_state import Screen
from test_gateway_support import Rig, Wearer

from benchmarks.page import resident_mib
from gateway.batcher import infer
from gateway.live.rows import CONFIDENCES
from gateway.live.signal import KEPT_S, Signals
from gateway.live.state import TICKS_PER_S
from models.bundle import SHIPPED, load_bundle

DEVICES = 80
WARM_S = CONFIDENCES + 10
"""Until a device's histories are full, and windows wait for labels no longer."""
MEASURED_S = 50
CORE_SHARE = 0.10
"""Of a thousand devices; twice that is let pass here, where other programs share the caches."""
GROWTH_MIB = 4.0
"""For an allocator that moves; a row that kept a byte too much a second would show in hours, one that kept its packets
or its events here: 80 devices get 4,000 of each."""


async def test_a_page_that_is_watched_costs_little_and_keeps_no_more_than_it_had():
    bundle = load_bundle("wrist6")
    rig = Rig(SHIPPED, answer=False)
    screen = Screen(rig)
    signals = Signals(rig.pipeline)
    wearers = [Wearer(bundle, f"w{n}", samples=12, seed=n) for n in range(DEVICES)]
    cpu_s: list[float] = []
    sizes: list[float] = []
    sent = 0
    with screen.viewers.place(), signals.watching("w0") as signal:
        seen, seen_signal = None, None
        for second in range(WARM_S + MEASURED_S):
            for wearer in wearers:
                rig.feed(wearer.name, wearer.packet())
                wearer.codes.clear()
            windows, rig.windows = rig.windows, []
            if windows:
                rig.pipeline.answered(windows, infer(bundle, windows)[0])
            rig.published.clear()
            rig.pass_ms(0)
            started = time.thread_time()
            for _ in range(TICKS_PER_S):
                rig.now_ns += 10**9 // TICKS_PER_S
                screen.state.tick()
                signals.tick()
            seen, events = await screen.state.feed.after(seen)
            seen_signal, more = await signal.after(seen_signal)
            cpu_s.append(time.thread_time() - started)
            sent += sum(map(len, (*events, *more)))
            if second >= WARM_S:
                sizes.append(resident_mib())
        kept = rig.pipeline.watchers["w0"]._kept
    share = sum(cpu_s[WARM_S:]) / MEASURED_S * 1000 / DEVICES
    note(
        "core share of 1,000 devices",
        share,
        "growth in MiB",
        sizes[-1] - sizes[0],
        "bytes a second",
        sent // len(cpu_s),
    )
    assert rig.pipeline.losses.accepted == DEVICES * (WARM_S + MEASURED_S)
    assert share < 2 * CORE_SHARE
    assert sizes[-1] - sizes[0] < GROWTH_MIB
    assert kept < (KEPT_S + 1) * bundle.codebook.rate_hz
