"""The shape of the code: imports point one way and in no circle, heavy ones wait, files and functions stay readable."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "binlatent"
FILES = sorted(ROOT.rglob("*.py"))

# From the ground up: a room or module imports only what stands on an earlier line, or itself.
FLOORS = (
    {"errors", "typing", "prng", "bits", "files", "images", "mesh", "console", "checkpoint"},
    {"nets", "diffusion", "text"},
    {"sampling"},
    {"data", "train"},
    {"config"},
    {"stored"},
    {"pipeline"},
    {"editing", "previews"},
    {"experiment"},
    {"evaluate", "convert"},
    {"machines"},
    {"demo", "export"},
    {"cli"},
)
HEAVY = {
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "matplotlib",
    "sklearn",
    "orbax",
    "tensorboardX",
    "clu",
    "transformers",
    "safetensors",
    "huggingface_hub",
    "uvicorn",
}
LONGEST_FILE, LONGEST_FUNCTION, MOST_MODULES = 350, 100, 14


def module(path: Path) -> str:
    """`binlatent/data/codes.py` as `data.codes`; a package by its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module(path): path for path in FILES}


def imports(path: Path, top_only: bool = False):
    """Modules that a file imports, lazily or not; only those of its top level where asked."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("binlatent.") in MODULES else node.module


def own_imports(path: Path) -> set[str]:
    found = {name.removeprefix("binlatent.") for name in imports(path) if name.startswith("binlatent.")}
    return {name for name in found if name in MODULES} - {module(path)}


def test_imports_point_one_way():
    floor = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
    for name, path in MODULES.items():
        room = name.split(".")[0]
        if room in ("", "__main__"):
            continue
        for other in own_imports(path):
            theirs = other.split(".")[0]
            if theirs == room:
                continue
            lower = floor[theirs] < floor[room] or (floor[theirs] == floor[room] == 0)
            assert lower, f"{name} imports {other}, which stands on the same floor or a higher one"


def test_there_is_no_circle_of_imports():
    graph = {name: own_imports(path) for name, path in MODULES.items() if name}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]):
        assert name not in way, "a circle: " + " → ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(graph.get(name, ())):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_no_folder_and_module_share_a_name():
    folders = {path.parent for path in FILES} - {ROOT}
    assert not [folder for folder in folders if folder.with_suffix(".py").exists()]


def test_the_top_holds_few_modules():
    assert len(list(ROOT.glob("*.py"))) <= MOST_MODULES


def test_files_and_functions_are_short():
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= LONGEST_FILE, f"{path.relative_to(ROOT)} is longer than {LONGEST_FILE} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= LONGEST_FUNCTION, f"{path.relative_to(ROOT)}: {node.name} is {length} lines long"


def test_heavy_imports_wait_for_their_use():
    for path in FILES:
        found = {name.split(".")[0] for name in imports(path, top_only=True)} & HEAVY
        assert not found, f"{path.relative_to(ROOT)} imports {sorted(found)} at the top"


@pytest.mark.parametrize("arguments", [["-c", "import binlatent"], ["-m", "binlatent", "--help"]])
def test_nothing_heavy_is_loaded_before_it_is_used(arguments):
    code = [sys.executable, "-X", "importtime", *arguments]
    loaded = subprocess.run(code, capture_output=True, text=True, check=True).stderr
    assert not [name for name in ("jax", "numpy", "flax", "orbax") if f" {name}\n" in loaded]
