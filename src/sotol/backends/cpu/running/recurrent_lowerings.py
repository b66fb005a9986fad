"""The lowerings of the ops of recurrent layers (`kernels/recurrent.py`).

T tokens, S sequences, H heads, d channels of a key, e of a value.
"""

from collections.abc import Mapping

from sotol.backends.cpu.layout import MOST_TAPS, padded
from sotol.backends.cpu.running.lower import Call, Lowering, Site, width_of
from sotol.formats.weights import Weight
from sotol.program.memory import Cache, State
from sotol.program.program import Node, Operand, Tensor

__all__ = ["RECURRENT_LOWERINGS"]


def _states(s: Site) -> Mapping[str, int]:
    """Where the sequences of a step and their states are."""
    place = s.places.cache(_cache(s.node))
    return {
        "sequences": s.places.count("S"), "starts": s.places.input("starts"), "positions": s.places.input("positions"),
        "slots": place.tables, "states": place.address, "size": place.block,
    }  # fmt: skip


def _moving_average(s: Site) -> list[Call]:
    x, decay, *_ = s.node.inputs
    return [s.call("moving_average", **_states(s), width=s.stored, row=4 * s.stored, decay=s.places.vector(decay),
                   x=s.at(x), out=s.out)]  # fmt: skip


def _convolve(s: Site) -> list[Call]:
    x, weight, bias, *_ = s.node.inputs
    assert isinstance(weight, Weight)
    return [s.call("convolve", s.node.attributes["act"], **_states(s), width=s.stored, row=4 * s.stored,
                   taps=weight.shape[1], weight=s.places.columns(weight), bias=s.places.vector(bias), x=s.at(x),
                   out=s.out)]  # fmt: skip


def _time_steps(s: Site) -> list[Call]:
    x, bias, rate = s.node.inputs
    return [s.call("time_steps", rows=s.rows, width=s.stored, bias=s.places.vector(bias), rate=s.places.vector(rate),
                   x=s.at(x), out=s.out, decay=s.places.result(s.number, 1))]  # fmt: skip


def _matrices(s: Site) -> Mapping[str, int]:
    """What both ops on a matrix for each head take."""
    heads, keys, values = _state(s.node).shape
    return {
        **_states(s), "heads": heads, "key_width": keys, "value_width": values, "mixed": s.at(s.node.inputs[0]),
        "mixed_row": _row(s.node.inputs[0]), "head_row": _row(s.node.inputs[1]), "out": s.out, "out_row": 4 * s.stored,
    }  # fmt: skip


def _delta_rule(s: Site) -> list[Call]:
    _, decay, gain, *_ = s.node.inputs
    width = _state(s.node).shape[1]
    return [s.call("delta_rule", int(s.node.attributes["tiled"]), **_matrices(s), key_heads=_shared(s.node),
                   scale=width**-0.5, eps=s.node.attributes["eps"], decay=s.at(decay), gain=s.at(gain))]  # fmt: skip


def _selective_scan(s: Site) -> list[Call]:
    _, steps, decay, skip, *_ = s.node.inputs
    return [s.call("selective_scan", **_matrices(s), groups=_shared(s.node), steps=s.at(steps), decay=s.at(decay),
                   skip=s.places.vector(skip))]  # fmt: skip


# ---- what kernels rely on beyond the op's rule


def _needs_state(node: Node, _context: int) -> str | None:
    cache = _cache(node)
    return None if isinstance(cache.layout, State) else f"{node.op.name} needs a state: not {cache}"


def _needs_convolution(node: Node, context: int) -> str | None:
    if said := _needs_state(node, context):
        return said
    weight = node.inputs[1]
    if not isinstance(weight, Weight):
        return f"{node.op.name} needs a weight: not {weight}"
    taps, kept = weight.shape[1], _state(node).shape[0]
    if 2 <= taps <= MOST_TAPS and kept == taps - 1:
        return None
    return f"the CPU backend convolves 2 to {MOST_TAPS} inputs, all but one in the state: not {taps} and {kept}"


def _needs_matrices(node: Node, context: int) -> str | None:
    if said := _needs_state(node, context):
        return said
    (heads, keys, values), shared = _state(node).shape, _shared(node)
    mixed = node.inputs[0]
    assert isinstance(mixed, Tensor)
    if shared > 0 and heads % shared == 0 and width_of(mixed.shape) == heads * values + 2 * shared * keys:
        return None
    return f"{node.op.name} of {heads} heads can't have their inputs from {list(mixed.shape)}"


# ---- operands


def _cache(node: Node) -> Cache:
    return next(x for x in node.inputs if isinstance(x, Cache))


def _state(node: Node) -> State:
    layout = _cache(node).layout
    assert isinstance(layout, State)
    return layout


def _shared(node: Node) -> int:
    """How many heads of keys there are, or groups of heads: what is left of a row beside its values."""
    heads, keys, values = _state(node).shape
    mixed = node.inputs[0]
    assert isinstance(mixed, Tensor)
    return (width_of(mixed.shape) - heads * values) // (2 * keys)


def _row(x: Operand) -> int:
    """Bytes from a row to the next one."""
    assert isinstance(x, Tensor)
    return 4 * padded(width_of(x.shape))


RECURRENT_LOWERINGS: dict[str, Lowering] = {
    "convolve": Lowering(_convolve, _needs_convolution),
    "delta_rule": Lowering(_delta_rule, _needs_matrices),
    "moving_average": Lowering(_moving_average, _needs_state),
    "selective_scan": Lowering(_selective_scan, _needs_matrices),
    "time_steps": Lowering(_time_steps),
}
