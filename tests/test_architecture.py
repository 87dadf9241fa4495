"""Imports point one way, heavy ones wait, and files stay small enough to be read."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "binlatent"
FILES = sorted(ROOT.rglob("*.py"))

# What each room may import besides itself and the small modules at the top that everybody may.
COMMON = {"typing", "errors", "prng", "bits", "weights", "cache"}
ROOMS = {
    "nets": set(),
    "diffusion": set(),
    "data": set(),
    "sampling": {"diffusion"},
    "evaluate": {"nets", "diffusion", "sampling", "data"},
    "train": {"nets", "diffusion", "sampling", "data", "evaluate"},
    "convert": {"nets", "diffusion", "sampling", "data", "train", "evaluate", "config", "experiment"},
}
HEAVY = {"tensorflow", "tensorflow_datasets", "torch", "matplotlib", "sklearn", "orbax", "tensorboardX", "clu"}


def imports(path: Path, top_only: bool):
    """Modules that a file imports; only those of its top level where asked."""
    tree = ast.parse(path.read_text())
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "binlatent":
                yield from (f"binlatent.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_one_way(room):
    allowed = ROOMS[room] | COMMON | {room}
    for path in (ROOT / room).rglob("*.py"):
        found = {m.split(".")[1] for m in imports(path, top_only=False) if m.startswith("binlatent.")}
        assert found <= allowed, f"{path.relative_to(ROOT)} imports {sorted(found - allowed)}"


def test_heavy_imports_wait_for_their_use():
    for path in FILES:
        found = {m.split(".")[0] for m in imports(path, top_only=True)} & HEAVY
        assert not found, f"{path.relative_to(ROOT)} imports {sorted(found)} at the top"
