"""JSON with something wrong in it: for fuzzers of what reads JSON."""

import json
import random
from typing import Any

__all__ = ["doubled", "mutated", "mutated_bytes", "nested", "spoilt"]

JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 255, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 63) - 1, 1 << 63, 1 << 64,
    -(1 << 63), 0.0, 0.5, -1.5, 1e-300, 1e300, "", "a", "▁", "a b", "x" * 3000, "\n", "\x00", "\ud83d\ude00", "../x",
    "/etc/passwd", "model.safetensors", "F32", "I8", "BOOL", "F8_E4M3", "(", "(a|b", "\\p{L}+|\\s", "(?:a|aa)+[bc]",
    [], [0], [[]], [1, 2], ["a"], ["a", "b"], [["a", 0.5]], {}, {"type": "Sequence"}, {"type": "NFC"}, {"a": 0},
    {"String": "a"}, {"Regex": "."},
)  # fmt: skip
KEYS = ("", "a", "type", "id")
ONTO = (b"\0", b"\xff", b"{", b"[", b'"', b",", b"9" * 30, b"NaN", b"\\ud800", b"1e999")
DEEP = (2, 9, 40, 3000)  # brackets around a value


def mutated(value: Any, rng: random.Random, times: int = 1) -> Any:
    """A copy with values that are others, gone, doubled or elsewhere. What is the same in both is shared."""
    for _ in range(times):
        value = _changed(value, rng)
    return value


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with one change, mostly somewhere in it: each step into it is a choice among its items."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.02:
        return rng.choice(JUNK)
    out: Any = value.copy()
    key = rng.choice(list(out)) if isinstance(out, dict) else rng.randrange(len(out))
    inner = out[key]
    if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
        out[key] = _changed(inner, rng)
        return out
    how = rng.random()
    if how < 0.2 and isinstance(inner, int) and not isinstance(inner, bool):
        out[key] = inner + rng.choice([-8, -4, -1, 1, 4, 8])
    elif how < 0.55:
        out[key] = rng.choice(JUNK)
    elif how < 0.7:
        del out[key]
    elif how < 0.85:
        out[key] = rng.choice(list(out.values()) if isinstance(out, dict) else out)
    elif isinstance(out, list):
        out.insert(key, inner)
    else:
        out[rng.choice([*KEYS, f"{key}2"])] = out.pop(key)
    return out


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
            out[at : at + size] = rng.choice(ONTO)
        elif how < 0.8:
            del out[at : at + size]
        else:
            out[at:at] = out[at : at + size]
    return bytes(out)


def doubled(text: bytes, rng: random.Random) -> bytes:
    """What is between two commas once more: items, members with their keys, halves of both."""
    commas = [at for at, byte in enumerate(text) if byte == ord(",")]
    if not commas:
        return text
    begin = rng.choice(commas)
    end = rng.choice([at for at in commas if at >= begin][:4])
    return text[:end] + text[begin:end] + text[end:]


def nested(text: bytes, rng: random.Random) -> bytes:
    """A value, or what looks like one, in many brackets."""
    begin = rng.randrange(len(text))
    end = min(len(text), begin + rng.choice([0, 1, 8]))
    depth = rng.choice(DEEP)
    return text[:begin] + b"[" * depth + text[begin:end] + b"]" * depth + text[end:]


def spoilt(value: Any, rng: random.Random) -> bytes:
    """The JSON of a value with something wrong in it, as text or as a value; sometimes nothing is."""
    how = rng.random()
    if how < 0.1:
        return json.dumps(value).encode()
    if how < 0.75:
        return json.dumps(mutated(value, rng, rng.choice([1, 1, 1, 2, 3]))).encode()
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
    if how < 0.8:
        return doubled(text, rng)
    return nested(text, rng) if how < 0.81 else mutated_bytes(text, rng)
