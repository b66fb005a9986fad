"""A rewrite of a Program: tokens whose results nobody wants are left out as soon as they serve no other token.

Of a prompt's tokens only the last one's logits are wanted, and no other token reads what the last layer makes of them:
behind its attention it computes the wanted rows alone. A row's bits don't depend on which others there are.
"""

from sotol.program import ops
from sotol.program.fuse import TensorMap
from sotol.program.program import Cache, Node, Program, StepInput, Tensor, map_tensors

__all__ = ["early_rows"]


def early_rows(program: Program) -> Program:
    """The program with its only `rows` before all ops that go row by row and serve nothing else.

    It is the same program where there are none. What is replaced loses its nodes, as of `fuse`.
    """
    found = [i for i, node in enumerate(program.nodes) if node.op is ops.rows]
    late = _late(program, found[0]) if len(found) == 1 else set()
    if len(late) < 2:
        return program
    index = program.nodes[found[0]].inputs[1]
    new, moved, cut = Program(), TensorMap(), TensorMap()  # cut: the wanted rows of what has all of them

    def wanted(x: Tensor, layer: int | None) -> Tensor:
        if x.index in late:
            return moved(x)
        if (x.index, x.output) not in cut.tensors:
            inputs = moved(x), index
            node = Node(ops.rows, inputs, {}, ops.rows.results_of(inputs, {}), layer)
            (cut.tensors[x.index, x.output],) = new.add(node)
        return cut(x)

    for i, node in enumerate(program.nodes):
        if i == found[0]:
            moved.record(i, [wanted(_tensors(node)[0], node.layer)])
            continue
        if i in late:
            inputs = tuple(wanted(x, node.layer) if isinstance(x, Tensor) else x for x in node.inputs)
            attributes = dict(node.attributes)
            if node.op is ops.reshape:
                attributes["shape"] = ("R", *attributes["shape"][1:])
            node = Node(node.op, inputs, attributes, node.op.results_of(inputs, attributes), node.layer)
        else:
            node = map_tensors(node, moved)
        moved.record(i, new.add(node))
    new.results = {name: moved(x) for name, x in program.results.items()}
    program.nodes.clear()
    program.results.clear()
    return new


def _late(program: Program, rows: int) -> set[int]:
    """The node `rows`, and those before it that can work on its rows alone: nothing else reads their results."""
    readers: list[set[int]] = [set() for _ in program.nodes]
    for i, node in enumerate(program.nodes):
        for x in _tensors(node):
            readers[x.index].add(i)
    for x in program.results.values():
        readers[x.index].add(len(program.nodes))
    whole = {i for i, node in enumerate(program.nodes) if not _row_by_row(node)}
    while True:
        late = {rows}
        for i in range(rows - 1, -1, -1):
            if i not in whole and readers[i] and readers[i] <= late:
                late.add(i)
        # `rows` cuts floats [T, N]: what reads others stays whole, and so does what is before it.
        uncut = {i for i in late for x in _tensors(program.nodes[i]) if x.index not in late and not _can_be_cut(x)}
        if not uncut:
            return late
        whole |= uncut


def _row_by_row(node: Node) -> bool:
    """Whether each row of the results comes from the same row of each tensor that it reads, and from no more."""
    if any(isinstance(x, Cache | StepInput) for x in node.inputs):
        return False
    shapes = [x.shape for x in _tensors(node)] + [result.shape for result in node.results]
    return all(shape[0] == "T" for shape in shapes)


def _can_be_cut(x: Tensor) -> bool:
    return x.kind == "f32" and len(x.shape) == 2


def _tensors(node: Node) -> list[Tensor]:
    return [x for x in node.inputs if isinstance(x, Tensor)]
