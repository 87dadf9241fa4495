"""Programs compiled for slices of TPUs: by the TPU's compiler where it is installed, otherwise what surrounds it."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import jax
import pytest

from binlatent import config as config_lib
from binlatent.errors import UserError
from binlatent.machines import slices, topology
from binlatent.machines.collectives import Collective
from binlatent.mesh import MeshShape
from tests import tiny

DOCS = Path(__file__).parents[2] / "docs/tpu.md"
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

with_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason='no libtpu (pip install -e ".[tpu]"): nothing compiled for TPUs'
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for every test, without the compiler's settings in the environment after it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("TPU_SKIP_MDS_QUERY", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES", "TPU_WORKER_ID"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", ["v9z:2x2", "v5e", "v5e:", "v5e:8", "v5e:0x4", "v5e:2x4x", "", "v5e:2x4 "])
def test_a_topology_that_is_none_is_named(name):
    with pytest.raises(UserError, match=f"no topology '{name}'.*v5e, v5p, v6e.*v5e:2x4"):
        slices.open_slice(name)


def test_without_the_compiler_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"v5e:2x4: the TPU's compiler is not installed: pip install -e '\.\[tpu\]'"):
        slices.open_slice("v5e:2x4")


@with_compiler
def test_a_slice_has_the_devices_of_its_name():
    found = slices.open_slice("v5p:2x2x2")
    assert len(found.devices) == 8 and {d.platform for d in found.devices} == {"tpu"}
    assert found.chip.memory == pytest.approx(95 * 2**30, rel=0.01)
    with pytest.raises(UserError, match=r"no topology 'v5e:3x4' \(.*divisible"):
        slices.open_slice("v5e:3x4")


@with_compiler
@pytest.mark.parametrize(
    ("name", "shape"), [("v6e:8x8", MeshShape(fsdp=4)), ("v5p:4x4x4", MeshShape(fsdp=2, tensor=2))]
)
def test_an_axis_of_a_mesh_may_be_a_part_of_an_axis_of_the_slice(name, shape):
    assert shape.build(slices.open_slice(name).devices).size == 64


def devices(num=8):
    """A slice of this machine's devices."""
    return slices.Slice(name="v5e:2x4", chip=slices.CHIPS["v5e"], devices=tuple(jax.devices()[:num]))


def test_a_mesh_or_a_batch_that_does_not_fit_the_slice_is_named():
    config = tiny.config(mesh__data=3)
    with pytest.raises(UserError, match=r"topology v5e:2x4: mesh data=3.*does not fit 8 devices; set --config\.mesh"):
        topology.lower(config, "prior", devices())
    config = tiny.config(prior_training__batch_size=12)
    with pytest.raises(UserError, match="topology v5e:2x4: prior: batch size 12 is not divisible"):
        topology.lower(config, "prior", devices())


def test_a_config_without_a_slice_is_named(monkeypatch):
    with pytest.raises(UserError, match="config cifar10 names no slice: give --topology v5e:2x4"):
        next(topology.rows(["cifar10"], "config"))
    asked = []
    monkeypatch.setattr(topology, "open_slice", lambda name: asked.append(name) or devices())
    assert list(topology.rows([], "config", programs=())) == []
    assert sorted(asked) == sorted(t for n in config_lib.shipped() if (t := config_lib.load(n).plan.topology)) != []


class Program(jax.stages.Lowered):
    """A lowered program that counts how often it is compiled."""

    def __init__(self, text="dense<0.5> : tensor<f32>", error=""):
        self.text, self.error, self.compiled = text, error, 0

    def as_text(self):
        return self.text

    def compile(self):
        self.compiled += 1
        if self.error:
            raise jax.errors.JaxRuntimeError(self.error)
        return jax.jit(lambda x: x.sum()).lower(jax.ShapeDtypeStruct((64,), "float32")).compile()


@pytest.fixture
def versions(monkeypatch):
    monkeypatch.setattr(topology, "_versions", lambda: {"libtpu": "1", "jax": "2"})


def test_a_program_is_compiled_once_for_a_slice_and_a_version(versions, monkeypatch):
    program = Program()
    assert topology.footprint(program, devices(), compiled=False) is None
    found = topology.footprint(program, devices())
    assert found.state == 64 * 4 + 4 and found.total == found.state + found.temporary and found.seconds > 0
    assert topology.footprint(program, devices()) == found == topology.footprint(program, devices(), compiled=False)
    assert program.compiled == 1
    topology.footprint(program, dataclasses.replace(devices(), name="v5e:4x4"))
    assert program.compiled == 2
    monkeypatch.setattr(topology, "_versions", lambda: {"libtpu": "1", "jax": "3"})
    topology.footprint(program, devices())
    assert program.compiled == 3


def test_programs_of_other_rates_are_the_same_and_of_other_shapes_are_not(versions):
    program = Program("dense<0.5> : tensor<f32>, dense<5.0e+05> : tensor<f32>, dense<1.0> : tensor<f32>")
    topology.footprint(program, devices())
    for text, same in (
        ("dense<0.25> : tensor<f32>, dense<-3.000000e-05> : tensor<f32>, dense<1.0> : tensor<f32>", True),
        ("dense<0.5> : tensor<f32>, dense<5.0e+05> : tensor<f32>, dense<0.5> : tensor<f32>", False),
        ("dense<0.0> : tensor<f32>, dense<5.0e+05> : tensor<f32>, dense<1.0> : tensor<f32>", False),
        ("dense<0.5> : tensor<8xf32>, dense<5.0e+05> : tensor<f32>, dense<1.0> : tensor<f32>", False),
    ):
        assert (topology.footprint(Program(text), devices(), compiled=False) is not None) == same


@pytest.mark.parametrize(
    ("message", "total"),
    [
        ("Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm. Exceeded hbm", 17.5 * 2**30),
        ("the total memory required for HLO temporaries (360.00G) exceeds available HBM (15.75G).", 360 * 2**30),
        ("Used 0.5T of 95.74G hbm", 2**39),
    ],
)
def test_a_program_that_the_compiler_refuses_says_what_it_would_take(message, total, versions):
    program = Program(error=f"RESOURCE_EXHAUSTED: {message}")
    found = topology.footprint(program, devices())
    assert (found.total, found.temporary) == (total, None)
    assert topology.footprint(program, devices()) == found and program.compiled == 1
    row = topology.Row(config="c", program="prior", slice=devices(), batch_size=8, footprint=found)
    assert "| refused |" in topology.table([row])
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        topology.footprint(Program(text="other", error="INTERNAL: something else"), devices())


def test_the_largest_batch_lies_on_the_line_through_a_batch_and_half_of_it(monkeypatch):
    """Memory of 1 GiB and 1/16 GiB an example: a chip of 15.75 GiB has room for 236, and parts of 16 for 224."""
    made = lambda lowered, *_, **__: topology.Footprint(  # noqa: E731
        state=0, temporary=0, total=2**30 + lowered * 2**26, collectives=(), seconds=1.0
    )
    monkeypatch.setattr(topology, "footprint", made)
    monkeypatch.setattr(topology, "lower", lambda config, program, where, size=64: (size, lambda: size))
    monkeypatch.setattr(topology, "open_slice", lambda name: devices())
    monkeypatch.setattr(config_lib, "load", lambda name: tiny.config(prior_training__micro_batches=2))
    rows = topology.rows(["c"], "v5e:2x4", programs=("prior",), largest=True)
    assert [(row.batch_size, row.largest) for row in rows] == [(64, 224)]
    monkeypatch.setattr(topology, "footprint", lambda *_, **__: made(64))  # of any batch: no line
    assert [row.largest for row in topology.rows(["c"], "v5e:2x4", programs=("prior",), largest=True)] == [None]


def test_a_table_has_the_collectives_and_the_largest_of_them():
    moved = (
        Collective(kind="all-gather", count=25, bytes=3 * 2**30, largest=2**20),
        Collective(kind="all-reduce", count=1, bytes=2**21, largest=2**21),
    )
    found = topology.Footprint(state=2**30, temporary=2**29, total=3 * 2**29, collectives=moved, seconds=61.2)
    row = topology.Row(config="digits", program="prior", slice=devices(), batch_size=8, footprint=found)
    assert topology.table([row]).splitlines()[-1] == (
        "| `digits` | v5e:2x4 | prior | 8 | 1 GiB | 512 MiB | 1.5 GiB (15.75) | 25 all-gather 3 GiB, 1 all-reduce 2 MiB | "
        "2 MiB all-reduce | 61 s |"
    )
    heading, rule, line = topology.table([dataclasses.replace(row, largest=96)]).splitlines()
    assert heading.endswith("| largest batch, about |") and line.endswith("| 96 |")
    assert heading.count("|") == rule.count("|") == line.count("|")


def documented() -> dict[tuple[str, str, str], list[str]]:
    """The cells of the rows of docs/tpu.md, by config, slice and program."""
    lines = [line.strip("| ").split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    return {(cells[0].strip("`"), cells[1], cells[2]): cells for cells in lines}


def size(text: str) -> float:
    number, unit = text.split()[:2]
    return float(number) * UNITS[unit]


def test_the_table_is_of_these_configs():
    """Of each paper config in the table: its slice, its batch, and that it fits."""
    for (name, where, program), cells in documented().items():
        config = config_lib.load(name)
        assert where == config.plan.topology, f"docs/tpu.md has {name} on {where}, and its config names another slice"
        if program in ("prior", "autoencoder"):
            assert int(cells[3]) == config[f"{program}_training"].batch_size
        assert size(cells[6]) < slices.CHIPS[where.partition(":")[0]].memory and cells[5] != "refused"


@with_compiler
@pytest.mark.slow
@pytest.mark.parametrize("program", topology.PROGRAMS)
def test_the_memory_of_a_small_config_is_what_the_table_says(program):
    (row,) = topology.rows(["digits"], "config", programs=(program,))
    cells = documented()["digits", row.slice.name, program]
    assert row.footprint.state == pytest.approx(size(cells[4]), rel=0.02)
    assert row.footprint.temporary == pytest.approx(size(cells[5]), rel=0.02)
    assert row.footprint.total == pytest.approx(size(cells[6]), rel=0.02)


@with_compiler
@pytest.mark.slow
@pytest.mark.parametrize("program", ["prior", "autoencoder"])
@pytest.mark.parametrize("mesh", [{"data": 8}, {"data": 1, "fsdp": 8}])
def test_a_training_step_sends_parameters_and_never_a_batch(program, mesh):
    """With so many examples that activations are larger than any parameter, of the prior all layers' together."""
    config = config_lib.override(config_lib.load("digits"), [f"mesh.{axis}={size}" for axis, size in mesh.items()])
    where = slices.open_slice("v5e:2x4")
    batch = 2048
    found = topology.footprint(topology.lower(config, program, where, batch)[1](), where)
    y, x, _ = config_lib.build_autoencoder(config).code_shape
    width = config.prior.width if program == "prior" else config.autoencoder.channels
    activations = batch // 8 * y * x * width * 2  # bfloat16, on one chip
    assert found.collectives
    assert max(moved.largest for moved in found.collectives) < activations / 2


def test_rates_of_a_program_are_found_in_its_text():
    """What `_generic` looks for is what JAX writes."""
    text = lambda rate: jax.jit(lambda x: x * rate).lower(jax.ShapeDtypeStruct((), "float32")).as_text()  # noqa: E731
    assert re.search("dense<.*> : tensor<f32>", text(0.3))
    assert topology._generic(text(0.3)) == topology._generic(text(2e-7)) != topology._generic(text(0.0))
