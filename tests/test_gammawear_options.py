"""Running a loop until it is asked to end."""

import asyncio
import signal

import pytest

from gammawear.options import run_command, until_stopped


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_on_a_loop_that_takes_no_signals(monkeypatch: pytest.MonkeyPatch, kind: signal.Signals) -> None:
    """As on Windows."""

    def refuse(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", refuse)
    said = []

    async def command() -> None:
        asked = asyncio.Event()

        async def work() -> None:
            signal.raise_signal(kind)
            await asked.wait()
            said.append("goodbye")

        async def stop() -> None:
            asked.set()

        await until_stopped(work(), stop)

    before = signal.getsignal(kind)
    run_command(command())
    assert said == ["goodbye"]
    assert signal.getsignal(kind) == before


def test_ctrl_c_before_there_is_anything_to_say_goodbye_to_is_ctrl_c() -> None:
    async def command() -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run_command(command())
