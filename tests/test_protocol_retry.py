"""How long to wait before the next attempt."""

from protocol.retry import FIRST_DELAY_S, LAST_DELAY_S, Backoff


def test_backoff_doubles_within_bounds_and_starts_over_after_a_good_connection():
    backoff = Backoff()
    delays = [backoff.next_delay() for _ in range(12)]
    assert all(0.2 * FIRST_DELAY_S * 2**n <= d <= FIRST_DELAY_S * 2**n for n, d in enumerate(delays[:5]))
    assert max(delays) <= LAST_DELAY_S
    backoff.lived(0.1)
    assert backoff.next_delay() >= 0.2 * LAST_DELAY_S
    backoff.lived(60)
    assert backoff.next_delay() <= FIRST_DELAY_S
