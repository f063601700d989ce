"""Read literals from a syntax tree, with the line of whatever is none."""

from __future__ import annotations

import ast
from typing import Any, Final

__all__ = ["NoLiteralError", "read_literal", "read_options"]

_MAX_DEPTH: Final = 20


class NoLiteralError(Exception):
    """An expression that would have to be run to be known."""

    def __init__(self, node: ast.AST, what: str) -> None:
        super().__init__(what)
        self.line: int = getattr(node, "lineno", 0)
        self.what = what


def read_literal(node: ast.expr, depth: int = _MAX_DEPTH) -> Any:
    """Return the value of a literal: None, bool, number, text, or a list, tuple or dict of them."""
    if depth == 0:
        raise NoLiteralError(node, "is nested too deeply")
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str()):
            return node.value
        case ast.UnaryOp(
            op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as number)
        ):
            if not isinstance(number, bool):
                return -number if isinstance(sign, ast.USub) else number
        case ast.List():
            return [read_literal(item, depth - 1) for item in node.elts]
        case ast.Tuple():
            return tuple(read_literal(item, depth - 1) for item in node.elts)
        case ast.Dict():
            pairs = [
                _pair(key, value, node, depth) for key, value in zip(node.keys, node.values, strict=True)
            ]
            return dict(pairs)
    raise NoLiteralError(node, "is not written as a literal")


def _pair(key: ast.expr | None, value: ast.expr, whole: ast.Dict, depth: int) -> tuple[Any, Any]:
    if key is None:
        raise NoLiteralError(whole, "is not written as a literal")
    name = read_literal(key, depth - 1)
    if isinstance(name, list | dict | tuple):
        raise NoLiteralError(key, "has a key that is no text")
    return name, read_literal(value, depth - 1)


def read_options(
    pairs: list[tuple[str, ast.expr, int]],
) -> tuple[dict[str, Any], dict[str, int], list[tuple[str, int, str]]]:
    """Read named literals; return values and lines by name, and ``(name, line, what is wrong)``.

    ``pairs`` are name, expression, and the line of the name.
    """
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    wrong: list[tuple[str, int, str]] = []
    for name, expression, line in pairs:
        if name in lines:
            wrong.append((name, line, "is given twice"))
            continue
        lines[name] = line
        try:
            values[name] = read_literal(expression)
        except NoLiteralError as error:
            wrong.append((name, error.line or line, error.what))
    return values, lines, wrong
