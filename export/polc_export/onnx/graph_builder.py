"""Writes ONNX nodes from arithmetic on named values, so that index formulas read as formulas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Union

import onnx
from onnx import helper


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of the graph under construction; operators write a node and give its output."""

    builder: GraphBuilder
    name: str

    def __add__(self, other: Operand) -> Value:
        return self.builder.op("Add", self, other)

    def __sub__(self, other: Operand) -> Value:
        return self.builder.op("Sub", self, other)

    def __mul__(self, other: Operand) -> Value:
        return self.builder.op("Mul", self, other)

    def __floordiv__(self, other: Operand) -> Value:
        """Floor division of integers that are not negative (ONNX's Div rounds towards zero)."""
        return self.builder.op("Div", self, other)

    def __lt__(self, other: Operand) -> Value:
        return self.builder.op("Less", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.builder.op("GreaterOrEqual", self, other)

    def __and__(self, other: Operand) -> Value:
        return self.builder.op("And", self, other)

    def clip(self, low: Operand, high: Operand) -> Value:
        """Limits to `high`, then to `low`, which wins where the two contradict."""
        return self.builder.op("Max", self.builder.op("Min", self, high), low)

    def expand(self, *axes: int) -> Value:
        """Inserts axes of length one at these places of the result."""
        return self.builder.op("Unsqueeze", self, list(axes))

    def take(self, indices: Operand, axis: int = 0) -> Value:
        """The slices at `indices` of one axis, whose place the indices' axes take."""
        return self.builder.op("Gather", self, indices, axis=axis)

    def reshape(self, *sizes: Operand) -> Value:
        """The same elements in another shape; each size is a scalar."""
        lengths = [self.builder.value(size).expand(0) for size in sizes]
        return self.builder.op("Reshape", self, self.builder.op("Concat", *lengths, axis=0))

    def cast(self, kind: int) -> Value:
        """The same elements as another type, one of `onnx.TensorProto`'s."""
        return self.builder.op("Cast", self, to=kind)

    def permute(self, *axes: int) -> Value:
        """The axes in another order."""
        return self.builder.op("Transpose", self, perm=axes)


Operand = Union[Value, int, float, Sequence[int]]  # noqa: UP007 - Value is not yet bound in the methods above


class GraphBuilder:
    """Collects nodes of a function and of the subgraphs inside it.

    Literals become constants of the outermost graph. So do attribute references, which runtimes resolve there
    but not always in a subgraph.
    """

    def __init__(self) -> None:
        self._constants: list[onnx.NodeProto] = []
        self._scopes: list[list[onnx.NodeProto]] = [[]]
        self._literals: dict[str, Value] = {}
        self._counts: dict[str, int] = {}

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """All nodes of the outermost graph, constants first."""
        return self._constants + self._scopes[0]

    def input(self, name: str) -> Value:
        """A value that the surroundings provide."""
        return Value(self, name)

    def attribute(self, name: str, kind: str) -> Value:
        """A scalar that an attribute of the function holds; `kind` is "int" or "float"."""
        node = helper.make_node("Constant", [], [name])
        field = node.attribute.add(name=f"value_{kind}", ref_attr_name=name)
        field.type = onnx.AttributeProto.AttributeType.Value(kind.upper())
        self._constants.append(node)
        return Value(self, name)

    def value(self, operand: Operand) -> Value:
        """The operand itself, or a constant for a literal: an int, a float, or a list of ints."""
        if isinstance(operand, Value):
            return operand
        if isinstance(operand, float):
            return self._literal(value_float=operand)
        if isinstance(operand, int):
            return self._literal(value_int=operand)
        return self._literal(value_ints=list(operand))

    def op(self, op_type: str, *inputs: Operand | None, name: str | None = None, **attributes: Any) -> Value:
        """Writes a node with one output.

        Args:
            op_type: of the default domain.
            inputs: values or literals; None is an optional input left out.
            name: of the output, unique in the whole function; made up if None.
            attributes: of the node.
        """
        given = ["" if x is None else self.value(x).name for x in inputs]
        output = name or self._fresh(op_type.lower())
        self._scopes[-1].append(helper.make_node(op_type, given, [output], **attributes))
        return Value(self, output)

    @contextmanager
    def subgraph(self) -> Iterator[list[onnx.NodeProto]]:
        """Nodes written inside the `with` go to the list it gives: a Loop's body, a branch of an If."""
        self._scopes.append([])
        try:
            yield self._scopes[-1]
        finally:
            self._scopes.pop()

    def _literal(self, **content: Any) -> Value:
        key = repr(content)
        if key not in self._literals:
            name = self._fresh("constant")
            self._constants.append(helper.make_node("Constant", [], [name], **content))
            self._literals[key] = Value(self, name)
        return self._literals[key]

    def _fresh(self, stem: str) -> str:
        self._counts[stem] = self._counts.get(stem, 0) + 1
        return f"{stem}_{self._counts[stem]}"
