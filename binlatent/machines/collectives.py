"""Collectives of a compiled program: how often each kind runs on a device, and how many bytes it has.

They are read from the text of XLA's optimized program. An instruction in the body of a loop counts as often as the loop
runs. The TPU's compiler writes two things in a way of its own: a collective that overlaps with other work has an
instruction in each of the fusions that it overlaps with, all of one `chain_id`, and a reduce-scatter is a fusion named
`all-reduce-scatter` around an all-reduce. Both count as what they are, once.
"""

import dataclasses
import math
import re
from collections import defaultdict

KINDS = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_CALLED = re.compile(r"(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_ARRAY = re.compile(r"\b(pred|[a-z]\d*[a-z]*\d*\w*)\[([\d,]*)\]")
_BITS = {"pred": 8, "token": 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """All collectives of one kind.

    Attributes:
      kind: one of `KINDS`.
      count: how often it runs on a device.
      bytes: of the arrays that it gathers, sums or moves, over all runs: the whole arrays, not a device's part.
      largest: bytes of the largest single array.
      where: the operation of the network that the largest array belongs to; empty if unknown.
    """

    kind: str
    count: int
    bytes: int
    largest: int
    where: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Instruction:
    shape: str
    operation: str
    rest: str


def collectives(text: str) -> tuple[Collective, ...]:
    """The collectives of a program by kind, those of most bytes first.

    Of a conditional, all branches count; a loop of unknown length counts once.

    Args:
      text: `Compiled.as_text()` of any backend.
    """
    computations, entry = _parse(text)
    runs = _runs(computations, entry)
    found: dict[str, list[tuple[int, list[int], str]]] = defaultdict(list)
    chains = set()
    for computation, instructions in computations.items():
        for instruction in instructions.values():
            kind = instruction.operation.removesuffix("-start")
            if kind not in KINDS:
                continue
            chain = re.search(r'chain_id="([^"]*)"', instruction.rest)
            if chain and chain[1] in chains:
                continue
            chains |= {chain[1]} if chain else set()
            if "all-reduce-scatter" in computation:
                kind = "reduce-scatter"
            name = re.search(r'op_name="([^"]*)"', instruction.rest)
            sizes = _sizes(instruction, instructions)
            found[kind].append((runs[computation], sizes, name[1] if name else ""))
    made = [_summary(kind, items) for kind, items in found.items()]
    return tuple(sorted(made, key=lambda x: (-x.bytes, x.kind)))


def _summary(kind: str, items: list[tuple[int, list[int], str]]) -> Collective:
    largest, where = max(((max(sizes, default=0), where) for _, sizes, where in items), key=lambda x: x[0])
    return Collective(
        kind=kind,
        count=sum(runs for runs, _, _ in items),
        bytes=sum(runs * sum(sizes) for runs, sizes, _ in items),
        largest=largest,
        where=where,
    )


def _parse(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    """Instructions by name of every computation by name, and the name of the first one that runs."""
    computations, entry, current = {}, "", {}
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = computations[match[1]] = {}
            entry = match[1] if line.startswith("ENTRY") else entry
        elif match := _INSTRUCTION.match(line):
            current[match[1]] = _Instruction(shape=match[2], operation=match[3], rest=match[4])
    return computations, entry


def _runs(computations: dict[str, dict[str, _Instruction]], entry: str) -> dict[str, int]:
    """How often each computation runs on a device; 0 for those that nothing calls."""
    calls: dict[str, list[tuple[str, int]]] = defaultdict(list)  # (caller, times for each run of it) of a computation
    for caller, instructions in computations.items():
        for instruction in instructions.values():
            names = _CALLED.findall(instruction.rest)
            names += [x.strip(" %") for found in _BRANCHES.findall(instruction.rest) for x in found.split(",")]
            times = _trips(instruction, computations) if instruction.operation == "while" else 1
            for name in names:
                calls[name].append((caller, times))
    known = {entry: 1}

    def runs(name: str) -> int:
        if name not in known:
            known[name] = sum(times * runs(caller) for caller, times in calls[name])
        return known[name]

    return {name: runs(name) for name in computations}


def _trips(loop: _Instruction, computations: dict[str, dict[str, _Instruction]]) -> int:
    """How often the body of a loop runs: as the compiler says, or by a condition `i < n`, where i counts from 0."""
    if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', loop.rest):
        return int(known[1])
    condition = computations.get(re.search(r"condition=%?([\w.-]+)", loop.rest)[1], {})
    limits = [
        int(n[1]) for x in condition.values() if x.operation == "constant" and (n := re.match(r"(\d+)\)", x.rest))
    ]
    return limits[0] if len(limits) == 1 else 1


def _sizes(instruction: _Instruction, others: dict[str, _Instruction]) -> list[int]:
    """Bytes of the whole arrays of a collective: its results, or of a reduce-scatter its operands."""
    if instruction.operation.startswith("reduce-scatter"):
        operands = re.findall(r"%?([\w.-]+)", instruction.rest.partition(")")[0])
        return [size for name in operands if name in others for size in _array_bytes(others[name].shape)]
    shapes = _array_bytes(instruction.shape)
    if instruction.operation.endswith("-start") and not instruction.operation.startswith("all-reduce"):
        return [max(shapes)]  # (operand, result, …); one array in all programs seen
    return shapes


def _array_bytes(shape: str) -> list[int]:
    return [
        math.prod(map(int, filter(None, sizes.split(",")))) * _bits(kind) // 8 for kind, sizes in _ARRAY.findall(shape)
    ]


def _bits(kind: str) -> int:
    return _BITS[kind] if kind in _BITS else int(re.search(r"\d+", kind)[0])
