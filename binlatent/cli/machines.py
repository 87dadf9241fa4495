"""`binlatent plan`, `bench` and `info`: the cost of configs, the speed of devices, the contents of a work directory."""

import dataclasses
from typing import Literal

from binlatent.cli import flags
from binlatent.console import say


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(flags.Command):
    """Compute what configs cost: parameters, bits, operations, memory; nothing is run.

    Attributes:
      configs: names or paths (default: all shipped configs).
      devices: number of devices in the mesh.
      compile: also compile the training steps, which takes minutes.
      topology: compile for this slice of TPUs, such as v5e:2x4, with the TPU's own compiler, which takes minutes for each program
        that was not compiled before; `config` for the slice that a config names itself.
      programs: with a topology, which programs to compile: prior, autoencoder (training steps), sampling, encoding.
      largest: with a topology, also estimate the largest batch that fits, from a second compilation with half the batch.
      cached: with a topology, only show programs that were compiled before.
      out: write the table there, as markdown.
    """

    configs: tuple[str, ...] = flags.flag((), metavar="C", positional=True)
    devices: int = 8
    compile: bool = False
    topology: str | None = flags.flag(None, metavar="SLICE")
    programs: tuple[Literal["prior", "autoencoder", "sampling", "encoding"], ...] = (
        "prior", "autoencoder", "sampling", "encoding",
    )  # fmt: skip
    largest: bool = False
    cached: bool = False
    out: str | None = flags.flag(None, metavar="FILE")

    def run(self) -> None:
        import jax

        from binlatent import config as config_lib
        from binlatent.machines import plan

        jax.config.update("jax_platforms", "cpu")  # virtual devices suffice, as nothing is run
        if self.topology is not None:
            self._on_tpus(self.topology)
            return
        jax.config.update("jax_num_cpu_devices", self.devices)
        text = plan.table(self.configs or list(config_lib.shipped()), self.devices, compiled=self.compile)
        say(text if self.out is None else self.out)
        if self.out is not None:
            plan.write(self.out, text, self.devices)

    def _on_tpus(self, name: str) -> None:
        from binlatent.machines import topology

        made = topology.rows(list(self.configs), name, programs=self.programs, largest=self.largest, cached=self.cached)
        text = topology.table(topology.report(made))
        say(text if self.out is None else self.out)
        if self.out is not None:
            topology.write(self.out, text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench(flags.Command):
    """Measure training and sampling on this machine's devices, with synthetic data and weights.

    Attributes:
      config: name or path of a config; set any key as --config.prior.width=256.
      batch_size: examples per call (default: as many as fit the memory).
      seconds: of each measurement.
    """

    config: str = flags.flag("lsun_churches_256", metavar="C")
    batch_size: int | None = None
    seconds: float = 10.0
    overrides: tuple[str, ...] = flags.hidden(())

    def run(self) -> None:
        from binlatent import config as config_lib
        from binlatent.machines import bench

        config = config_lib.load(self.config, self.overrides)
        say(f"{self.config}, synthetic data and weights")
        say(bench.table(bench.bench(config, batch_size=self.batch_size or 0, seconds=self.seconds)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Info(flags.Command):
    """Describe a work directory: parameters, steps, bits per image, classes, finished stages.

    Attributes:
      workdir: the run's folder.
    """

    workdir: str = flags.flag(metavar="DIR")

    def run(self) -> None:
        from binlatent.cli.info import describe

        say(describe(self.workdir))
