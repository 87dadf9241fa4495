"""`binlatent plan`, `bench` and `info`: what configs cost, what devices do, what a work directory holds."""

import dataclasses

from binlatent.cli import flags
from binlatent.console import say


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(flags.Command):
    """What configs cost: parameters, bits, operations, memory; nothing is run.

    Attributes:
      configs: names or paths; all that are shipped unless given.
      devices: of the mesh.
      compile: compile the training steps as well; takes minutes.
      out: write the table there, as markdown.
    """

    configs: tuple[str, ...] = flags.flag((), metavar="C", positional=True)
    devices: int = 8
    compile: bool = False
    out: str | None = flags.flag(None, metavar="FILE")

    def run(self) -> None:
        import jax

        from binlatent import config as config_lib
        from binlatent.machines import plan

        jax.config.update("jax_platforms", "cpu")  # nothing is run: virtual devices serve as well
        jax.config.update("jax_num_cpu_devices", self.devices)
        text = plan.table(self.configs or list(config_lib.shipped()), self.devices, compiled=self.compile)
        say(text if self.out is None else self.out)
        if self.out is not None:
            plan.write(self.out, text, self.devices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench(flags.Command):
    """Measure training and sampling on this machine's devices, with made-up data and weights.

    Attributes:
      config: what to measure; any key is set as --config.prior.width=256.
      batch_size: examples of a call (default: what fills the devices).
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
        say(f"{self.config}, made-up data and weights")
        say(bench.table(bench.bench(config, batch_size=self.batch_size or 0, seconds=self.seconds)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Info(flags.Command):
    """Tell what a work directory holds: parameters, steps, bits per image, classes, stages done.

    Attributes:
      workdir: the run's folder.
    """

    workdir: str = flags.flag(metavar="DIR")

    def run(self) -> None:
        from binlatent.cli.info import describe

        say(describe(self.workdir))
