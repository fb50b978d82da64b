"""Files changed at random, as disks, editors, other programs and enemies change them."""

from __future__ import annotations

import json
from random import Random
from typing import Any

TOKENS = (
    "", " ", "0", "-1", "1", "2.5", "1e18", "1e999", "-1e999", "nan", ".nan", ".inf", "null", "true", "[]", "{}", "~",
    "100000000", "9007199254740993", "99999999999999999999999", "../x", "/etc/x", "..", "a b", "'", '"', "#", ":", ",",
    "&a [*a]", "*b", "!!python/object/apply:os.system [x]", "\x00", "\ufeff", "\u2028", "é", "\r", "\t", "x" * 300,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2.5, 1e18, float("nan"), float("inf"), 10**8, 2**53 + 1, 10**30, "", "x", "../x",
    "nan", "\x00", "x" * 1000, [], {}, [[]], [None], {"x": None}, {"": 1},
)  # fmt: skip


def mutate(data: bytes, random: Random) -> bytes:
    """`data` with one to three changes of its bytes, its lines, its words or, if it is JSON, its values."""
    for _ in range(random.randint(1, 3)):
        ways = [_bytes, _bytes]
        text = _text(data)
        if text is not None:
            ways += [_lines, _words, _words, _words]
            if text.lstrip()[:1] in ("{", "["):
                ways += [_json] * 6
        data = random.choice(ways)(data, random)
    return data


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _bytes(data: bytes, random: Random) -> bytes:
    place = random.randint(0, max(0, len(data) - 1))
    end = min(len(data), place + random.choice((1, 2, 4, 8, 64, 4096)))
    noise = bytes(random.randint(0, 255) for _ in range(random.choice((1, 2, 4, 8))))
    flipped = bytes([data[place] ^ (1 << random.randint(0, 7))]) if data else b""
    return random.choice(
        (
            data[:place],
            data[:place] + flipped + data[place + 1 :],
            data[:place] + noise + data[place + len(noise) :],
            data[:place] + noise + data[place:],
            data[:place] + data[end:],
            data[:place] + data[place:end] * 2 + data[end:],
            data[:place] + b"\xff" * (end - place) + data[end:],
            data[:place] + bytes(end - place) + data[end:],
            b"\xef\xbb\xbf" + data,
            data + data,
            b"",
        )
    )


def _lines(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\n")
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    way = random.randint(0, 5)
    if way == 0:
        del lines[first]
    elif way == 1:
        lines.insert(second, lines[first])
    elif way == 2:
        lines[first], lines[second] = lines[second], lines[first]
    elif way == 3:
        lines[first] += b","
    elif way == 4:
        lines[first] = b" " * random.randint(1, 9) + lines[first]
    return (b"\r\n" if way == 5 else b"\n").join(lines)


def _words(data: bytes, random: Random) -> bytes:
    """Replace one of the runs of characters between separators."""
    text = data.decode(errors="replace")
    borders = [-1, *(place for place, character in enumerate(text) if character in " ,:=\n{}[]\"'"), len(text)]
    number = random.randrange(len(borders) - 1)
    token = random.choice(TOKENS)
    return (text[: borders[number] + 1] + token + text[borders[number + 1] :]).encode(errors="replace")


def _json(data: bytes, random: Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            visit(node[key])

    visit(value)
    if not places or random.random() < 0.05:
        return json.dumps(random.choice(VALUES)).encode()
    node, key = random.choice(places)
    way = random.randint(0, 9)
    if way < 6:
        node[key] = random.choice(VALUES)
    elif way == 6:
        del node[key]
    elif way == 7 and isinstance(node, dict):
        node[random.choice(TOKENS)] = node[key]
    elif way == 8:
        node[key] = [node[key]]
    else:
        other, name = random.choice(places)
        node[key] = json.loads(json.dumps(other[name])) if name in other or isinstance(other, list) else None
    return json.dumps(value).encode()
