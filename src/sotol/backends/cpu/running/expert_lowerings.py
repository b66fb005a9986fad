"""The lowerings of the ops of mixtures of experts (`kernels/routing.py`, `kernels/experts.py`).

T tokens, E experts, k choices of each token, N outputs, K inputs.
"""

from sotol.backends.cpu.layout import MOST_EXPERTS, QUANT_RECORD, padded
from sotol.backends.cpu.running.lower import Call, Lowering, Site, piece_panels, residual_of, width_of
from sotol.formats.weights import Weight
from sotol.program import ops
from sotol.program.program import Constant, Node, Operand, Tensor

__all__ = ["EXPERT_LOWERINGS"]

SCORES = ("softmax", "sigmoid", "chosen", "chosen_sigmoid")


def _choose_experts(s: Site) -> list[Call]:
    logits, bias = s.node.inputs
    assert isinstance(logits, Tensor)
    asked, experts = s.node.attributes, int(logits.shape[1])
    number = {name: int(asked[name]) for name in ("k", "groups", "groups_used", "best", "normalised")}
    order, runs = _sorted(s, Tensor(logits.program, s.number, s.node.shape, "i32"))
    return [
        s.call("choose_experts", asked["scores"], rows=s.rows, experts=experts, row=4 * padded(experts), **number,
               factor=asked["factor"], x=s.at(logits), bias=s.places.vector(bias), out=s.out,
               weights=s.places.result(s.number, 1), weights_row=4 * padded(number["k"])),
        s.call("sort_choices", rows=s.rows, k=number["k"], experts=experts, choices=s.out, order=order, runs=runs),
    ]  # fmt: skip


def _sorted(s: Site, choice: Operand) -> tuple[int, int]:
    """The addresses of the order and of the runs of choices."""
    assert isinstance(choice, Tensor)
    return s.places.sorted_choices(choice.index, s.places.limit(str(choice.shape[0])) * width_of(choice.shape))


def _expert_linear(s: Site) -> list[Call]:
    x, choice, weight = s.node.inputs
    assert isinstance(x, Tensor)
    assert isinstance(weight, Weight)
    panels, count, size = s.places.panels(weight)
    experts, outputs, width = weight.shape
    count //= experts
    each, (order, runs) = len(x.shape) == 3, _sorted(s, choice)
    if x.kind == "int8":
        kind, x_row, x_bytes = "int8", width_of(x.shape), width
        quant = s.at(x) + s.places.limit(str(x.shape[0])) * x_row
        quant_row, quant_bytes = x_row // ops.GROUP * QUANT_RECORD, width // ops.GROUP * QUANT_RECORD
    else:
        kind, x_row, x_bytes = "f32", 4 * padded(width_of(x.shape)), 4 * width
        quant = quant_row = quant_bytes = 0
    return [s.call("expert_linear", weight.encoding.kind, kind, runs=runs, order=order, k=int(s.node.shape[1]),
                   width=width, outputs=outputs, panels=panels, count=count, panel_bytes=size,
                   piece_panels=-(-piece_panels(count, size) // 4) * 4, x=s.at(x), x_row=x_row, x_choice=x_bytes * each,
                   x_bytes=x_bytes, quant=quant, quant_row=quant_row, quant_choice=quant_bytes * each,
                   quant_bytes=quant_bytes, out=s.out, out_row=4 * s.stored)]  # fmt: skip


def _reorder_choices(s: Site) -> list[Call]:
    x, choice, order = s.node.inputs
    assert isinstance(x, Tensor)
    _, k, width = s.node.shape
    return [s.call("reorder_choices", rows=s.rows, k=int(k), width=int(width), choices=s.at(choice),
                   order=s.places.vector(order), x=s.at(x), x_row=4 * padded(width_of(x.shape)),
                   x_choice=4 * int(width) * (len(x.shape) == 3), out=s.out, out_row=4 * s.stored)]  # fmt: skip


def _add_expert_bias(s: Site) -> list[Call]:
    x, choice, bias = s.node.inputs
    _, k, width = s.node.shape
    return [s.call("add_expert_bias", rows=s.rows, k=int(k), width=int(width), row=4 * s.stored, x=s.at(x),
                   choices=s.at(choice), bias=s.places.vector(bias), out=s.out)]  # fmt: skip


def _scale_choices(s: Site) -> list[Call]:
    weights, choice, table = s.node.inputs
    return [s.call("scale_choices", rows=s.rows, k=s.width, row=4 * s.stored, weights=s.at(weights),
                   choices=s.at(choice), table=s.places.vector(table), out=s.out)]  # fmt: skip


def _combine(s: Site, combine: Node | None = None, residual: int = 0) -> list[Call]:
    node = combine or s.node
    x, weights = node.inputs
    assert isinstance(x, Tensor)
    k = int(x.shape[1])
    return [s.call("combine", rows=s.rows, k=k, width=s.width, row=4 * s.stored, x=s.at(x),
                   x_row=4 * padded(width_of(x.shape)), weights=s.at(weights) if node.attributes["weighted"] else 0,
                   weights_row=4 * padded(k) * node.attributes["weighted"], residual=residual, out=s.out)]  # fmt: skip


def _combine_add(s: Site) -> list[Call]:
    combine, add = s.node.parts
    return _combine(s, combine, s.at(residual_of(add)))


def _spread(s: Site) -> list[Call]:
    x, weights = s.node.inputs
    _, k, width = s.node.shape
    return [s.call("spread", rows=s.rows, k=int(k), width=int(width), row=4 * padded(int(width)), x=s.at(x),
                   weights=s.at(weights), weights_row=4 * padded(int(k)), out=s.out, out_row=4 * s.stored)]  # fmt: skip


# ---- what kernels rely on beyond the op's rule


def _needs_choose_experts(node: Node, _context: int) -> str | None:
    asked, experts = node.attributes, int(node.inputs[0].shape[1])  # type: ignore[union-attr]
    groups, used = asked["groups"], asked["groups_used"]
    if asked["scores"] not in SCORES:
        return f"choose_experts has the scores {', '.join(SCORES)}: not {asked['scores']}"
    if experts > MOST_EXPERTS:
        return f"the CPU backend has up to {MOST_EXPERTS} experts: not {experts}"
    if groups < 1 or experts % groups or not 1 <= used <= groups or asked["best"] < 1:
        return f"choose_experts needs equal groups of {experts} experts, some of which are used: not {used} of {groups}"
    if not 1 <= asked["k"] <= used * (experts // groups):
        return f"choose_experts can't choose {asked['k']} of {used * (experts // groups)} experts"
    return None


def _needs_choices(node: Node, weight: Operand) -> str | None:
    """Choices index matrices: they must be those of a `choose_experts` between as many experts as there are."""
    choice = node.inputs[1]
    assert isinstance(choice, Tensor)
    made_by = choice.program.nodes[choice.index]
    if made_by.op is not ops.choose_experts:
        return f"{node.op.name} needs choices that choose_experts makes: not those of {made_by.op.name}"
    logits = made_by.inputs[0]
    assert isinstance(logits, Tensor)
    assert isinstance(weight, Weight | Constant)
    if logits.shape[1] != weight.shape[0]:
        return f"{node.op.name}: {weight.name} has {weight.shape[0]} experts, and {logits.shape[1]} can be chosen"
    return None


def _needs_rows(node: Node) -> str | None:
    x, choice, _ = node.inputs
    assert isinstance(x, Tensor)
    assert isinstance(choice, Tensor)
    if x.shape[:-1] in (choice.shape[:1], choice.shape):
        return None
    return f"{node.op.name} needs a row for each token or each choice: not {list(x.shape)}"


def _needs_expert_linear(node: Node, _context: int) -> str | None:
    x, _, weight = node.inputs
    assert isinstance(x, Tensor)
    assert isinstance(weight, Weight)
    if problem := _needs_rows(node):
        return problem
    if x.kind not in ("int8", "f32") or (x.kind == "int8" and not weight.encoding.whole):
        return f"expert_linear can't read {x.kind}: only a product with whole weights reads int8"
    return _needs_choices(node, weight)


def _needs_reorder_choices(node: Node, _context: int) -> str | None:
    """Indices are read as they are."""
    order, width = node.inputs[2], int(node.shape[-1])
    if not isinstance(order, Constant) or order.value.min() < 0 or order.value.max() >= width:
        return f"reorder_choices needs constant orders of {width} numbers"
    return _needs_rows(node) or _needs_choices(node, order)


def _needs_expert_numbers(node: Node, _context: int) -> str | None:
    return _needs_choices(node, node.inputs[2])


EXPERT_LOWERINGS: dict[str, Lowering] = {
    "add_expert_bias": Lowering(_add_expert_bias, _needs_expert_numbers),
    "combine": Lowering(_combine),
    "combine_add": Lowering(_combine_add),
    "expert_linear": Lowering(_expert_linear, _needs_expert_linear),
    "reorder_choices": Lowering(_reorder_choices, _needs_reorder_choices),
    "choose_experts": Lowering(_choose_experts, _needs_choose_experts),
    "scale_choices": Lowering(_scale_choices, _needs_expert_numbers),
    "spread": Lowering(_spread),
}
