"""Mutation testing: how many small changes to a module its tests notice.

    python -m tests.mutants sampling/guidance --sample 25
    python -m tests.mutants diffusion/elbo --tests tests/diffusion/test_elbo.py::test_it_is_the_loop_over_its_terms

A mutant is the module with one change: an operator, a comparison, a number, a condition, an argument, a call or a `raise`. The
module's tests (`tests/sampling/test_guidance.py` of the first example) run on each mutant, in a copy of the checkout and in a
fork of a process that has already imported the libraries. Survivors are printed: each one lacks a test, or is equivalent.
"""

import argparse
import ast
import copy
import difflib
import importlib
import itertools
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BINARY = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.BitXor: ast.BitOr, ast.MatMult: ast.Mult,
}  # fmt: skip
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}  # fmt: skip
OPPOSITES = {"alpha_t": "alpha_s", "a_t": "a_s", "flip": "stay"}
OPPOSITES |= {b: a for a, b in OPPOSITES.items()}
# Calls whose arguments stay: messages, and containers whose change would be noticed by chance.
KEPT_CALLS = {"warn", "say", "ValueError", "UserError", "range", "len", "tuple", "list", "dict", "partial", "field"}
MODULES = {
    "jax", "jnp", "np", "prng", "process", "math", "bits", "optax", "prediction_lib", "numbers", "elbo", "difflib", "dataclasses",
    "nn",
}  # fmt: skip
UNTOUCHED = ("annotation", "returns", "decorator_list", "bases", "type_params")
LIBRARIES = ("flax.linen", "optax", "orbax.checkpoint", "hypothesis", "jaxtyping", "beartype", "grain")

Step = tuple[str, int | None]  # from a node to a child: the field, and the index where that is a list


def _with(node: ast.AST, **fields) -> ast.AST:
    new = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _changes(node: ast.AST, field: str) -> Iterator[tuple[str, ast.AST]]:
    """(description, the node with one change)."""
    match node:
        case ast.Raise():
            yield "raise → pass", ast.Pass()
        case ast.BinOp():
            if new := BINARY.get(type(node.op)):
                yield f"{type(node.op).__name__} → {new.__name__}", _with(node, op=new())
            if isinstance(node.op, (ast.Add, ast.Mult)):
                yield "drop right operand", node.left
        case ast.Compare():
            for i, op in enumerate(node.ops):
                for new in COMPARISONS[type(op)]:
                    ops = [*node.ops[:i], new(), *node.ops[i + 1 :]]
                    yield f"{type(op).__name__} → {new.__name__}", _with(node, ops=ops)
        case ast.BoolOp():
            yield "and ↔ or", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield f"drop {type(node.op).__name__}", node.operand
        case ast.Constant(value=bool()):
            yield "flip bool", ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield f"{node.value} → {node.value + 1}", ast.Constant(node.value + 1)
            if node.value == 1:
                yield "1 → 0", ast.Constant(0)
        case ast.Constant(value=float()):
            yield f"{node.value} → {2 * node.value + 1}", ast.Constant(2 * node.value + 1)
        case ast.Constant(value=str()) if field in ("comparators", "args"):
            yield "string changed", ast.Constant("XX" + node.value)
        case ast.If() | ast.IfExp():
            yield "negate condition", _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Call():
            yield from _calls(node)
        case ast.Expr(value=ast.Call()):
            yield "delete call", ast.Pass()
        case ast.Attribute(attr="flip" | "stay"):
            yield "flip ↔ stay", _with(node, attr=OPPOSITES[node.attr])
        case ast.Name(ctx=ast.Load()) if node.id in OPPOSITES:
            yield f"{node.id} → {OPPOSITES[node.id]}", _with(node, id=OPPOSITES[node.id])


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    function, arguments = node.func, node.args
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name not in KEPT_CALLS | {"dataclass"} and not any(isinstance(each, ast.Starred) for each in arguments):
        for i, (a, b) in enumerate(itertools.pairwise(arguments)):
            if ast.dump(a) != ast.dump(b):
                swapped = [*arguments[:i], b, a, *arguments[i + 2 :]]
                yield f"{name}: swap arguments {i},{i + 1}", _with(node, args=swapped)
        if arguments:
            yield f"{name}(x, …) → x", arguments[0]
        owner = getattr(function, "value", None)
        if owner is not None and not isinstance(owner, ast.Attribute) and getattr(owner, "id", "") not in MODULES:
            yield f"x.{name}(…) → x", owner
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "strict") and name not in ("dataclass", "replace"):
            yield f"{name}: drop {keyword.arg}=", _with(node, keywords=[*node.keywords[:i], *node.keywords[i + 1 :]])


def _sites(node: ast.AST, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], ast.AST, str, ast.AST]]:
    """(path, node, description, changed node), without annotations, docstrings and what is raised."""
    for description, new in _changes(node, path[-1][0] if path else ""):
        yield path, node, description, new
    if isinstance(node, ast.Raise):
        return
    for field, value in ast.iter_fields(node):
        if field in UNTOUCHED:
            continue
        for i, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            docstring = isinstance(child, ast.Expr) and isinstance(getattr(child.value, "value", None), str)
            if isinstance(child, ast.AST) and not docstring:
                yield from _sites(child, (*path, (field, i)))


def mutants(source: str) -> list[tuple[int, str, str]]:
    """(line, description, text) of every mutant that can be compiled."""
    tree = ast.parse(source)
    unchanged, found = ast.unparse(tree), []
    for path, node, description, new in _sites(tree):
        changed = copy.deepcopy(tree)
        *before, (field, i) = path
        parent = changed
        for name, index in before:
            parent = getattr(parent, name) if index is None else getattr(parent, name)[index]
        new = ast.copy_location(copy.deepcopy(new), node)
        if i is None:
            setattr(parent, field, new)
        else:
            getattr(parent, field)[i] = new
        text = ast.unparse(ast.fix_missing_locations(changed))
        try:
            compile(text, "mutant", "exec")
        except SyntaxError:
            continue
        if text != unchanged:
            found.append((getattr(node, "lineno", 0), description, text))
    return found


def passes(tests: list[str], limit: int) -> bool:
    """Whether the tests pass in a fork, within so many seconds of CPU time."""
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
        os._exit(int(pytest.main([*options, *tests])))
    end = time.monotonic() + 4 * limit
    while time.monotonic() < end:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", help="within binlatent/, without .py")
    parser.add_argument("--tests", nargs="+", help="what is run (default: the module's own file)")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn at random (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder, _, name = args.module.rpartition("/")
    tests = args.tests or [str(Path("tests", folder, f"test_{name}.py"))]
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as place:
        for part in ("binlatent", "tests", "configs", "pyproject.toml"):
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, Path(place, part))
        os.chdir(place)
        sys.path[:] = [place, *(path for path in sys.path if path not in ("", str(ROOT)))]
        del sys.modules["tests"]
        os.environ["PYTHONPATH"] = place
        for library in ("tests.conftest", *LIBRARIES):  # the settings of JAX are in the former
            importlib.import_module(library)
        file = Path(place, "binlatent", f"{args.module}.py")
        source, began = file.read_text(), time.monotonic()
        if not passes(tests, 600):
            sys.exit(f"{' '.join(tests)}: fails without a mutant")
        passes(tests, 600)  # with what is compiled
        limit = int(20 + 3 * (time.monotonic() - began))
        found = mutants(source)
        tried = found if args.sample is None else random.Random(args.seed).sample(found, min(args.sample, len(found)))
        killed = 0
        for line, description, text in tried:
            file.write_text(text)
            if not passes(tests, limit):
                killed += 1
                continue
            pair = ast.unparse(ast.parse(source)).splitlines(), text.splitlines()
            lines = [
                x[1:].strip() for x in difflib.unified_diff(*pair, lineterm="", n=0) if x[:2] not in ("--", "++", "@@")
            ]
            print(f"{args.module}:{line} survived: {description}: {' ⇒ '.join(lines)}", flush=True)
        print(f"{args.module}: {killed} killed of {len(tried)} tried of {len(found)} mutants", flush=True)


if __name__ == "__main__":
    main()
