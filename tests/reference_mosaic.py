"""The context coder of mosaics a second time: plain Python, written from the description in its docstring alone."""

import math
from collections import defaultdict
from collections.abc import Callable

WEIGHTS = {
    (-4, 0): 1,
    (-2, -2): -1, (-2, -1): -6, (-2, 0): 11, (-2, 1): -3, (-2, 2): 3,
    (-1, -2): -8, (-1, -1): 3, (-1, 0): 15, (-1, 1): 11, (-1, 2): 2,
    (0, -4): 3, (0, -2): 13, (0, -1): 20,
}  # fmt: skip
KNOTS = [round(4096 / (1 + math.exp(-i / 2))) for i in range(-16, 17)]


def squash(z: int) -> int:
    i, j = divmod(z + 2048, 128)
    return (KNOTS[i] * (128 - j) + KNOTS[i + 1] * j + 64) // 128


def stretch(p: int) -> int:
    return next(z for z in range(-2047, 2048) if squash(z) >= p)


STRETCH = [stretch(p) for p in range(4096)]


def cut(value: int, low: int, high: int) -> int:
    return sorted((low, value, high))[1]


class Model:
    """What adapts within a frame."""

    def __init__(self) -> None:
        self.chance = defaultdict(lambda: 32768)
        self.age = defaultdict(int)
        self.weight = defaultdict(lambda: 24576)
        self.decided: list[tuple[int, int]] = []

    def decide(self, contexts: list[tuple], noise: int, slot: int, outcome: int) -> int:
        cells = [(context, slot) for context in contexts]
        x = [STRETCH[self.chance[cell] // 16] for cell in cells]
        total = sum(self.weight[i, noise, slot] * x[i] for i in range(3))
        h = cut(squash(cut(total // 65536, -2047, 2047)), 1, 4095)
        self.decided.append((h, outcome))
        for i, cell in enumerate(cells):
            step = (x[i] * (4096 * outcome - h) * 14 + 32768) // 65536
            self.weight[i, noise, slot] = cut(self.weight[i, noise, slot] + step, -262143, 262143)
            p = self.chance[cell]
            self.chance[cell] = p + (65535 * outcome - p) * (131072 // (2 * self.age[cell] + 3)) // 65536
            self.age[cell] = min(self.age[cell] + 1, 30)
        return outcome


def decisions(rows: list[list[int]], bits: int) -> list[tuple[int, int]]:
    """(chance of a 1 in 4096, outcome) of all that is decided of the rows of codes."""
    width, top, s = len(rows[0]), 2**bits - 1, max(0, bits - 4)
    model, errors = Model(), defaultdict(int)

    def a(y: int, x: int) -> int:
        if y < 0:
            return 0
        if 0 <= x < width:
            return rows[y][x]
        return a(y - 2, x & 1 if x < 0 else width - 2 + (x & 1))

    for y in range(len(rows)):
        for x in range(width):
            p = cut(sum(w * a(y + dy, x + dx) for (dy, dx), w in WEIGHTS.items()), 0, 64 * top)
            g, f, q = (p + 32) // 64, (p + 32) % 64, (x + y) % 2
            r = 2 * errors[y, x - 1] + errors[y, x - 2] + 2 * errors[y - 1, x] + errors[y - 1, x + 1]
            noise = sum(r >= least for least in (10, 20, 30, 40, 60, 80, 120))
            same, other = (
                cut((32 * v - p) >> (s + 4), -7, 8) for v in (a(y, x - 2) + a(y - 2, x), a(y, x - 1) + a(y - 1, x))
            )
            sides = [cut((v - g) >> s, -3, 3) for v in (a(y, x - 2), a(y - 2, x))]
            corners = [cut((v - g) >> s, -1, 1) for v in (a(y - 2, x - 2), a(y - 2, x + 2))]
            contexts = [
                ("A", g >> s, f // 8, noise // 2, q),
                ("B", same, other, f // 16, q),
                ("C", *sides, *corners, q),
            ]
            decide_code(lambda slot, o, c=contexts, n=noise: model.decide(c, n, slot, int(o)), rows[y][x], g, top)
            errors[y, x] = min(abs(64 * rows[y][x] - p) >> (s + 2), 255)
    return model.decided


def decide_code(decide: Callable[[int, bool], int], c: int, g: int, top: int) -> None:
    if not decide(0, c != g):
        return
    u = decide(1, c > g) if 0 < g < top else int(g == 0)
    room, m, k = (top - g if u else g), abs(c - g), 0
    while 2 << k <= room and decide(2 + 2 * min(k, 2) + u, m >= 2 << k):
        k += 1
    known = 1 << k
    for i in reversed(range(k)):
        if known + (1 << i) <= room:
            known += decide(8 + 2 * min(k - 1, 2) + u if i == k - 1 else 14, bool(m >> i & 1)) << i
    assert known == m


def code(decided: list[tuple[int, int]]) -> bytes:
    """The shortest fraction in the interval. ``low`` is one large number: nothing is written until the end."""
    low, width, places = 0, 2**32 - 1, 4
    for h, outcome in decided:
        bound = (width >> 12) * (4096 - h)
        low, width = (low + bound, width - bound) if outcome else (low, bound)
        while width < 2**24:
            low, width, places = low << 8, width << 8, places + 1
    for kept in range(places + 1):
        unit = 256 ** (places - kept)
        shortest = -(-low // unit)
        if shortest * unit < low + width:
            return shortest.to_bytes(kept, "big").rstrip(b"\0") or b"\0"
    raise AssertionError("the whole number is in the interval")
