"""Which tensors of an ONNX graph are which activations.

A tensor is known by its name, or by the module that it comes from: torch.onnx.export notes a node's
modules in its metadata or, in its older form, in its name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..names import MODULES
from ..schemes import OURS, SCHEMES, scheme_of

__all__ = ["tensors"]

_SCOPES = "pkg.torch.onnx.name_scopes"  # torch/onnx/_internal/exporter/_core.py
_SHAPES = ("Constant", "Shape")  # operators that make no activations


def tensors(graph: Any, names: str | Path | None = None) -> dict[str, str]:
    """Our names (perhaps fused ones) -> the tensors of a graph (a GraphProto)."""
    made = {t: None for node in graph.node if node.op_type not in _SHAPES for t in node.output}
    ends = [output.name for output in graph.output]
    texts_only = not any(len(i.type.tensor_type.shape.dim) == 4 for i in graph.input)
    schemes = [SCHEMES["onnx"]] if names is None else [scheme_of(names)]
    found = {name: t for t in made for s in schemes if (name := s.ours(t, texts_only))}
    found |= _by_module(graph, texts_only)
    for scheme in (SCHEMES["transformers"], OURS, *schemes):
        found |= {name: t for t in ends if (name := scheme.ours(t, texts_only))}
    return found


def _by_module(graph: Any, texts_only: bool) -> dict[str, str]:
    """Tensors that leave or enter a module, by the library that knows most of the modules."""
    borders = _borders(graph)
    found: dict[str, str] = {}
    for library in MODULES:
        here = {
            name: tensor
            for key, tensor in borders.items()
            if (name := SCHEMES[library].ours(key, texts_only))
        }
        found = max(found, here, key=len)
    return found


def _borders(graph: Any) -> dict[str, str]:
    """The last tensor that leaves a module, by its name; by name.input the only one that enters."""
    inside: dict[str, list[int]] = {}
    for i, node in enumerate(graph.node):
        for module in _modules(node):
            inside.setdefault(module, []).append(i)
    users: dict[str, set[int]] = {output.name: {-1} for output in graph.output}
    for i, node in enumerate(graph.node):
        for tensor in node.input:
            users.setdefault(tensor, set()).add(i)
    flows = {t for node in graph.node if node.op_type not in _SHAPES for t in node.output}
    flows |= {graph_input.name for graph_input in graph.input}
    flows -= {initializer.name for initializer in graph.initializer}
    found = {}
    for module, numbers in inside.items():
        nodes, own = [graph.node[i] for i in numbers], set(numbers)
        made = [t for node in nodes for t in node.output]
        leaving = [t for t in made if t in flows and users.get(t, set()) - own]
        entering = {t for node in nodes for t in node.input if t in flows} - set(made)
        if leaving:
            found[module] = leaving[-1]
        if len(entering) == 1:
            found[f"{module}.input"] = entering.pop()
    return found


def _modules(node: Any) -> Iterator[str]:
    """The modules that a node lies in, "encoder.layers.0" for example, and its softmax."""
    path = _module(node)
    if path and node.op_type == "Softmax":
        yield f"{path}.softmax"
    while path:
        yield path
        path = path.rpartition(".")[0]


def _module(node: Any) -> str:
    """The innermost module that a node lies in, or ""."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            try:
                return str(ast.literal_eval(entry.value)[-2])
            except (ValueError, SyntaxError, IndexError, TypeError):
                return ""
    if not node.name.startswith("/"):
        return ""
    *parts, _ = node.name[1:].split("/")
    following = [*parts[1:], ""]
    # the name of a Sequential stands before that of its part, and in it
    kept = (p for p, after in zip(parts, following, strict=False) if not after.startswith(f"{p}."))
    return ".".join(kept)
