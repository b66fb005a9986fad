"""JSON with something wrong in it: for fuzzers of what reads JSON."""

import copy
import json
import random
from typing import Any

__all__ = ["mutated", "mutated_bytes", "spoilt"]

JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 255, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 63) - 1, 1 << 63, 1 << 64,
    -(1 << 63), 0.0, 0.5, -1.5, 1e-300, 1e300, "", "a", "▁", "a b", "x" * 3000, "\n", "\x00", "\ud83d\ude00", "../x",
    "/etc/passwd", "model.safetensors", "F32", "I8", "BOOL", "F8_E4M3", "(", "(a|b", "\\p{L}+|\\s", "(?:a|aa)+[bc]",
    [], [0], [[]], [1, 2], ["a"], ["a", "b"], [["a", 0.5]], {}, {"type": "Sequence"}, {"type": "NFC"}, {"a": 0},
    {"String": "a"}, {"Regex": "."},
)  # fmt: skip


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Each container with each of its keys or indices."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, inner in items:
        found.append((value, key))
        _places(inner, found)
    return found


def mutated(value: Any, rng: random.Random, times: int = 1) -> Any:
    """A copy with values that are others, gone, doubled or elsewhere."""
    value = copy.deepcopy(value)
    for _ in range(times):
        places = _places(value, [])
        if not places:
            return rng.choice(JUNK)
        holder, key = rng.choice(places)
        how = rng.random()
        if how < 0.5:
            holder[key] = copy.deepcopy(rng.choice(JUNK))
        elif how < 0.65:
            del holder[key]
        elif how < 0.8:
            other, at = rng.choice(places)
            with_copy = copy.deepcopy(other[at]) if not isinstance(other, list) or at < len(other) else None
            holder[key] = with_copy
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[rng.choice(["", "a", "type", "id", str(key) + "2"])] = holder.pop(key)
        if isinstance(holder[key] if isinstance(holder, dict) and key in holder else None, int) and rng.random() < 0.5:
            holder[key] += rng.choice([-8, -4, -1, 1, 4, 8])
    return value


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes that are others, gone or doubled."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        if not out:
            break
        at = rng.randrange(len(out))
        size = rng.choice([1, 1, 4, 8, 40])
        how = rng.random()
        if how < 0.4:
            out[at] = rng.randrange(256)
        elif how < 0.6:
            out[at : at + size] = rng.choice(
                [b"\0", b"\xff", b"{", b"[", b'"', b",", b"9" * 30, b"NaN", b"\\ud800", b"1e999"]
            )
        elif how < 0.8:
            del out[at : at + size]
        else:
            out[at:at] = out[at : at + size]
    return bytes(out)


def spoilt(value: Any, rng: random.Random) -> bytes:
    """The JSON of a value with something wrong in it, as text or as a value; sometimes nothing is."""
    how = rng.random()
    if how < 0.1:
        return json.dumps(value).encode()
    if how < 0.7:
        return json.dumps(mutated(value, rng, rng.choice([1, 1, 1, 2, 3]))).encode()
    return mutated_bytes(json.dumps(value, ensure_ascii=rng.random() < 0.5).encode(), rng)
