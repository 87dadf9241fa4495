"""`binlatent run`, `train` and `encode`: from a config and data to a trained work directory."""

import dataclasses
from typing import TYPE_CHECKING, Literal

from binlatent.cli import flags
from binlatent.console import say
from binlatent.errors import UserError

if TYPE_CHECKING:
    from binlatent.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work(flags.Command):
    """The common flags of commands that train.

    Attributes:
      workdir: the run's folder: config, checkpoints, codes, pictures.
      config: path or name of a config, or another work directory; set any key as --config.prior.width=256. Needed only
        the first time, as the work directory stores it.
      distributed: join the other processes of a detected cluster (TPU pod, SLURM, Open MPI).
      coordinator: join the other processes at this address, at which process 0 listens.
      num_processes: number of processes.
      process_id: index of this process, from 0.
      start_timeout: seconds to wait for the others.
    """

    resumable = True

    workdir: str = flags.flag(metavar="DIR")
    config: str | None = flags.flag(None, metavar="C")
    distributed: bool = False
    coordinator: str | None = flags.flag(None, metavar="HOST:PORT")
    num_processes: int | None = flags.flag(None, metavar="N")
    process_id: int | None = flags.flag(None, metavar="I")
    start_timeout: int = flags.flag(300, metavar="S")
    overrides: tuple[str, ...] = flags.hidden(())

    def open(self) -> "Experiment":
        """Joins the other processes, if any, and opens or creates the work directory.

        Raises:
          UserError: the processes cannot connect, or the config is invalid.
        """
        if self.distributed or self.coordinator or self.num_processes is not None or self.process_id is not None:
            from binlatent.cli import distributed

            distributed.start(
                coordinator=self.coordinator,
                num_processes=self.num_processes,
                process_id=self.process_id,
                timeout=self.start_timeout,
            )
        from binlatent import config as config_lib
        from binlatent.experiment import Experiment
        from binlatent.files import user_path
        from binlatent.train.compile import keep_programs

        keep_programs(user_path(self.workdir) / "compiled")
        if self.config is not None:
            return Experiment.open(self.workdir, config_lib.load(self.config, self.overrides))
        experiment = Experiment.open(self.workdir)
        if not self.overrides:
            return experiment
        return Experiment.open(self.workdir, config_lib.override(experiment.config, self.overrides))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Work):
    """Train both stages and save samples; skips finished stages and resumes interrupted ones."""

    def run(self) -> None:
        self.open().run()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Work):
    """Train one stage, or resume it.

    Attributes:
      stage: the stage; `decoder` fine-tunes the decoder of a trained autoencoder, and codes and prior stay valid; `student`
        distils the prior to a few steps.
      init_from: start a new run from the EMA parameters of this work directory.
      profile: trace these steps for TensorBoard's profiler.
    """

    stage: Literal["autoencoder", "prior", "decoder", "student"]
    init_from: str | None = flags.flag(None, metavar="DIR")
    profile: str | None = flags.flag(None, metavar="FIRST:LAST")

    def run(self) -> None:
        profile = _steps(self.profile) if self.profile else None
        self.open().train(self.stage, init_from=self.init_from, profile=profile)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encode(Work):
    """Encode the data set to packed codes."""

    def run(self) -> None:
        manifest = self.open().encode()
        counts = ", ".join(f"{manifest.count(split)} {split}" for split in manifest.shards)
        say(f"codes: {counts}, {manifest.spec.record.itemsize} bytes each, in {self.workdir}/codes")


def _steps(text: str) -> tuple[int, int]:
    """Parses `FIRST:LAST`."""
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise UserError(f"--profile {text}: FIRST:LAST is expected, two steps such as 100:110")
    return int(first), int(last)
