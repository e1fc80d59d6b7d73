"""Shape of each product function, and the expressions in it that a mutation can change.

A shape holds statements, operators and numbers. It leaves out names, texts, annotations, imports and decorators.
So a function keeps its shape when it moves to another file or when its variables are renamed.
"""

import ast
import subprocess
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)
IGNORED = {"annotation", "arg", "ctx", "decorator_list", "kind", "name", "returns", "type_comment", "type_params"}
BOUNDARY = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
EQUALITY = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
EXTREME = {"min": "max", "max": "min"}
TEXTS_AND_LISTS = ("s", "List", "Tuple")
LEAST_ALIKE, SAME_NAME = 0.8, 0.2
"""Least similarity of a function that changed, and the bonus for an unchanged name."""


class Site(NamedTuple):
    """Mutation of one expression; `key` is its kind and the shape of its statement."""

    key: list[str]
    node: ast.AST
    new: ast.AST
    statement: ast.AST


class Function(NamedTuple):
    """Function or method of the product."""

    path: str
    name: str
    shape: list[str]
    sites: list[Site]


def tracked(tree):
    """List the files that git knows and that exist."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=tree, capture_output=True, text=True, check=True)
    return [name for name in sorted(listed.stdout.split("\0")) if (tree / name).is_file()]


def functions(tree):
    """List the functions of all product files, without those that Triton compiles."""
    paths = [path for path in tracked(tree) if path.endswith(".py") and not path.startswith("tests/")]
    return [found for path in paths for found in _defined(ast.parse((tree / path).read_text("utf-8")).body, path)]


def _defined(body, path):
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _defined(node.body, path)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if any("jit" in ast.unparse(decorator) for decorator in node.decorator_list):
                continue
            lines = list(_outline(node))
            pairs = [(block, part) for _, block in lines if block for part in _parts(block)]
            changes = [(block, part, change) for block, part in pairs if (change := _changed(part))]
            sites = [Site([kind, _shape(block)], part, new, block) for block, part, (kind, new) in changes]
            yield Function(path, node.name, [line for line, _ in lines], sites)


def _outline(node, depth=0):
    """Yield each line of a shape with its statement; a line that begins a body has none."""
    for name, value in ast.iter_fields(node):
        if _holds_blocks(value):
            yield f"{'  ' * depth}{name}:", None
            for block in value:
                text = isinstance(block, ast.Expr) and _shape(block.value) == "s"
                if not text and not isinstance(block, ast.Import | ast.ImportFrom | ast.Pass):
                    yield f"{'  ' * depth}{_shape(block)}", block
                    yield from _outline(block, depth + 1)


def _holds_blocks(value):
    return isinstance(value, list) and bool(value) and isinstance(value[0], BLOCKS)


def _fields(node):
    return [value for name, value in ast.iter_fields(node) if name not in IGNORED and not _holds_blocks(value)]


def _shape(value):
    match value:
        case list():
            return f"[{' '.join(map(_shape, value))}]"
        case ast.Name() | ast.arg():
            return "n"
        case ast.Attribute():
            inner = _shape(value.value)
            return inner if inner == "n" else f"{inner}.n"  # `module.name` may become `name`
        case ast.JoinedStr() | ast.Constant(value=str() | bytes()):
            return "s"
        case ast.Constant():
            return repr(value.value)
        case ast.AnnAssign(value=ast.expr()):
            return _shape(ast.Assign([value.target], value.value))
        case ast.AST():
            return f"{type(value).__name__}({' '.join(map(_shape, _fields(value)))})"
    return "-"


def _parts(node):
    """Yield a node and its expressions, but none in f-strings: Python 3.11 misplaces them."""
    yield node
    for value in _fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr) and not _is_option(child):
                yield from _parts(child)


def _is_option(node):
    """Recognise options such as `strict=True`, which rarely change a result."""
    return isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool)


def _changed(node):
    """Return the kind of mutation and the mutated node, or None."""
    match node:
        case ast.Compare(ops=[op, *rest]) if type(op) in BOUNDARY:
            return "boundary", ast.Compare(node.left, [BOUNDARY[type(op)](), *rest], node.comparators)
        case ast.Compare(ops=[op, *rest]) if type(op) in EQUALITY:
            return "equality", ast.Compare(node.left, [EQUALITY[type(op)](), *rest], node.comparators)
        case ast.BinOp(op=ast.Add()) if not any(_shape(x).startswith(TEXTS_AND_LISTS) for x in (node.left, node.right)):
            return "sum", ast.BinOp(node.left, ast.Sub(), node.right)
        case ast.BinOp(op=ast.Mult()):
            return "product", ast.BinOp(node.left, ast.Div(), node.right)
        case ast.BoolOp(op=ast.And()):
            return "and", ast.BoolOp(ast.Or(), node.values)
        case ast.UnaryOp(op=ast.Not()):
            return "not", node.operand
        case ast.Constant(value=bool()):
            return "truth", ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            return "number", ast.Constant(node.value + 1)
        case ast.Return(value=ast.expr()) if _shape(node.value) != "None":
            return "return", ast.Return(ast.Constant(None))
        case ast.Call(func=ast.Name(id="min" | "max")):
            return "extreme", ast.Call(ast.Name(EXTREME[node.func.id]), node.args, node.keywords)
    return None


def record(function, site):
    """Describe a mutant so that it can be found in another tree."""
    alike = [one.node for one in function.sites if one.key == site.key]
    return {
        "name": f"{function.path}:{site.node.lineno}:{site.node.col_offset} {function.name} {site.key[0]}",
        "before": ast.unparse(site.node),
        "after": ast.unparse(site.new),
        "path": function.path,
        "function": function.name,
        "key": site.key,
        "place": [[id(node) for node in alike].index(id(site.node)), len(alike)],
        "shape": function.shape,
    }


def find(mutant, known):
    """Return function, site and similarity of a mutant in another tree, or None."""
    index, count = mutant["place"]
    best, found = (), None
    for function in known:
        alike = [site for site in function.sites if site.key == mutant["key"]]
        if len(alike) == count:
            ratio = SequenceMatcher(None, function.shape, mutant["shape"], autojunk=False).ratio()
            named = function.name == mutant["function"]
            stems = SequenceMatcher(None, Path(function.path).stem, Path(mutant["path"]).stem).ratio()
            rank = (ratio == 1, ratio + SAME_NAME * named, stems)
            if rank > best and rank[1] >= LEAST_ALIKE:
                best, found = rank, (function, alike[index], ratio)
    return found


def mutated(source, site):
    """Return the source with the mutation; the columns of a node count bytes."""
    node, raw = site.node, source.encode()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    begin, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
    text = ast.unparse(site.new)
    return (raw[:begin] + (text if isinstance(node, ast.stmt) else f"({text})").encode() + raw[end:]).decode()
