"""Small damage to any content: bytes cut, flipped and moved, JSON with other keys, types and sizes, files swapped."""

import copy
import json

HOSTILE = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1e308, -0.0, 1e-320, float("nan"), float("inf"), "", " ", "x",
    "0", "1e999", "../../x", "/etc/passwd", "<script>", "=cmd()", "a\nb", "\0", "\ud800", "é" * 300, "x" * 5000, [], {},
    [[]], [None], {"": None}, {"a": {"b": []}}, list(range(300)),
]  # fmt: skip
NESTED = 100_000  # levels, more than any parser's recursion
DEEP = 900  # levels that json reads, and that a recursive reader may not


def damaged(content, rng, others=()):
    """Return content with one piece of damage, or rarely several; JSON is often damaged by its structure."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = one(content, rng, others)
    return content


def one(content, rng, others=()):
    """Return content with one piece of damage."""
    if content[:1] in (b"{", b"[") and rng.random() < 0.75:
        try:
            return structural(content, rng)
        except (ValueError, RecursionError):  # damaged before
            pass
    if others and rng.random() < 0.05:
        return rng.choice(others)
    return rng.choice(BYTES)(content, rng)


def truncated(content, rng):
    """Cut the end off, often within the last bytes."""
    return content[: rng.choice((0, 1, len(content) // 2, max(0, len(content) - 1), rng.randrange(len(content) + 1)))]


def flipped(content, rng):
    """Flip one bit."""
    return replaced(content, rng, lambda byte: byte ^ 1 << rng.randrange(8))


def overwritten(content, rng):
    """Write another byte."""
    return replaced(content, rng, lambda _: rng.choice((0, 255, 127, 128, rng.randrange(256))))


def replaced(content, rng, change):
    """Change one byte, more often one of the first, which are headers, or of the last, which are directories."""
    if not content:
        return b"\0"
    size = len(content)
    place = rng.choice((rng.randrange(size), rng.randrange(min(size, 300)), size - 1 - rng.randrange(min(size, 300))))
    return content[:place] + bytes([change(content[place])]) + content[place + 1 :]


def inserted(content, rng):
    """Insert bytes."""
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.choice((b"\0" * 8, b"\xff" * 4, b"{", b"\n", rng.randbytes(16))) + content[place:]


def repeated(content, rng):
    """Repeat, remove or move a piece."""
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    piece = content[start:end]
    return rng.choice((content[:end] + piece + content[end:], content[:start] + content[end:], piece + content))


def zeroed(content, rng):
    """Write zeros over a piece, as a file system does that lost a block."""
    start = rng.randrange(len(content) + 1)
    size = min(rng.choice((4, 64, 4096)), len(content) - start)
    return content[:start] + bytes(size) + content[start + size :]


BYTES = (truncated, flipped, flipped, overwritten, inserted, repeated, zeroed)


def structural(content, rng):
    """Return JSON with a key deleted, renamed or doubled, a value of another type or size, or deep nesting."""
    whole = json.loads(content)
    kind = rng.randrange(12)
    if kind == 0:
        return rng.choice((b"[" * NESTED, b'{"a":' * NESTED, b"[" * DEEP + b"]" * DEEP, b"NaN", b"null", b'"x"', b"[]"))
    places = list(_places(whole))
    if not places:
        return b"{}"
    holder, key = rng.choice(places)
    if kind in (1, 2):
        del holder[key]
    elif kind == 3 and isinstance(holder, dict):
        holder[rng.choice((key + "x", "", "x" * 3000, key.upper()))] = holder.pop(key)
    elif kind == 4:
        other, where = rng.choice(places)
        holder[key], other[where] = copy.deepcopy(other[where]), copy.deepcopy(holder[key])
    elif kind == 5:
        holder[key] = _deep(holder[key])
    elif kind in (6, 7):
        holder[key] = _of_another_type(holder[key], rng)
    elif kind == 8 and isinstance(holder[key], int | float):
        holder[key] = rng.choice((holder[key] + 1, holder[key] * 2, -holder[key], holder[key] * 10**9))
    elif kind == 9:
        doubled = json.dumps(whole)
        place = doubled.find("{") + 1
        return (
            doubled[:place] + '"' + str(key) + '": ' + json.dumps(rng.choice(HOSTILE)) + ", " + doubled[place:]
        ).encode()
    else:
        holder[key] = rng.choice(HOSTILE)
    return json.dumps(whole).encode()


def _places(node):
    """Yield every (container, key) of nested JSON."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(pairs):
        yield node, key
        yield from _places(value)


def _deep(value):
    for _ in range(DEEP):
        value = [value]
    return value


def _of_another_type(value, rng):
    changes = [str(value), [value], {"x": value}, None, bool(value), {}]
    if isinstance(value, int | float):
        changes += [float(value) + 0.5, -value]
    if isinstance(value, list):
        changes += [value[::-1], value[:-1], value + value, {str(i): v for i, v in enumerate(value)}]
    if isinstance(value, dict):
        changes += [list(value), list(value.values())]
    return rng.choice(changes)
