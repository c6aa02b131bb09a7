"""The rules of the house that no other tool checks (ARCHITECTURE.md, "Rules").

A module has one noun and at most 400 lines, a function at most 60; `__init__.py` holds a docstring,
imports and `__all__`; every module says what it is for; no drawer names; no queue without a bound
and no task that nobody owns. An exemption is a line with its reason in `tools/tidy.toml`; one that
is no longer needed is an error too, so the list can only shrink.

    python tools/tidy.py        print what is against a rule, exit 1 if anything is
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "handler", "handlers"}
GENERATED = ("_pb2.py", "_pb2_grpc.py")
INIT_NODES = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)


def sources() -> list[Path]:
    """Return the shipped modules, generated ones left out."""
    return sorted(
        path for path in ROOT.glob("packages/*/src/**/*.py") if not path.name.endswith(GENERATED)
    )


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the length of a function without its docstring."""
    body = node.body
    docstring = 0
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        docstring = (body[0].end_lineno or 0) - body[0].lineno + 1
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def is_call(node: ast.AST, owner: str, name: str) -> bool:
    """Tell whether `node` is the call `owner.name(...)`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == name
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == owner
    )


def check_module(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (rule, message) for each thing in one module that is against a rule."""
    text = path.read_text()
    tree = ast.parse(text)
    lines = text.count("\n")
    if lines > MODULE_LINES_MAX:
        yield "module-lines", f"{lines} lines, at most {MODULE_LINES_MAX}: find the second noun"
    if not ast.get_docstring(tree):
        yield "docstring", "the module does not say what it is for"
    if path.stem in DRAWERS or path.parent.name in DRAWERS:
        yield "drawer", f"{path.stem!r} is a drawer, not a noun"
    if path.name == "__init__.py":
        for node in tree.body:
            if not isinstance(node, INIT_NODES):
                yield (
                    "init",
                    f"line {node.lineno}: only a docstring, imports and __all__ belong here",
                )
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = function_lines(node)
            if length > FUNCTION_LINES_MAX:
                yield "function-lines", f"{node.name}: {length} lines, at most {FUNCTION_LINES_MAX}"
        if is_call(node, "asyncio", "Queue") and not (node.args or node.keywords):
            yield "unbounded", f"line {node.lineno}: asyncio.Queue() without a size"
        if isinstance(node, ast.Expr) and is_call(node.value, "asyncio", "create_task"):
            yield "orphan-task", f"line {node.lineno}: nobody keeps this task; use a TaskGroup"


def main() -> int:
    """Check the tree against the exemptions; return the exit code."""
    exemptions = tomllib.loads((ROOT / "tools" / "tidy.toml").read_text())["exempt"]
    allowed = {(entry["path"], entry["rule"]) for entry in exemptions}
    used: set[tuple[str, str]] = set()
    failures = 0
    for path in sources():
        relative = str(path.relative_to(ROOT / "packages"))
        for rule, message in check_module(path):
            if (relative, rule) in allowed:
                used.add((relative, rule))
                continue
            failures += 1
            print(f"packages/{relative}: [{rule}] {message}", file=sys.stderr)
    for relative, rule in sorted(allowed - used):
        failures += 1
        print(
            f"tools/tidy.toml: {relative} no longer needs {rule!r}: remove the line",
            file=sys.stderr,
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
