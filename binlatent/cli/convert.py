"""`binlatent convert` and `convert-features`: checkpoints and weights from PyTorch."""

import dataclasses
from typing import Literal

from binlatent.cli import flags
from binlatent.console import say


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convert(flags.Command):
    """Convert checkpoints of the PyTorch release to a work directory.

    Attributes:
      workdir: a new work directory; set any key of its config as --config.data.path=photos.
      autoencoder: binaryae_*.th or binaryae_ema_*.th.
      denoiser: bld_*.th or bld_ema_*.th; either file alone is enough.
      hparams: the release's hyper-parameters by its own names; those that the tensors determine may be omitted.
    """

    workdir: str = flags.flag(metavar="DIR")
    autoencoder: str | None = flags.flag(None, metavar="F.th")
    denoiser: str | None = flags.flag(None, metavar="F.th")
    hparams: str | None = flags.flag(None, metavar="H.json")
    overrides: tuple[str, ...] = flags.hidden(())

    def run(self) -> None:
        from binlatent.convert.workdir import to_workdir

        lines = to_workdir(
            workdir=self.workdir,
            autoencoder=self.autoencoder,
            denoiser=self.denoiser,
            hparams=self.hparams,
            overrides=self.overrides,
        )
        say("\n".join(lines))
        say(f"{self.workdir} is ready; see `binlatent info --workdir {self.workdir}`")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertFeatures(flags.Command):
    """Download and convert the weights of a feature network, once per machine.

    Attributes:
      name: the network.
      files: local copies of its published files, for a machine without a network: inception takes
        pt_inception-2015-12-05-6726825d.pth, lpips takes vgg16-397923af.pth and lpips's weights/v0.1/vgg.pth, resnet50
        takes resnet50-0676ba61.pth.
    """

    name: Literal["inception", "lpips", "resnet50"] = flags.flag(positional=True)
    files: tuple[str, ...] = flags.flag((), metavar="FILE", positional=True)

    def run(self) -> None:
        from binlatent.convert.features import convert_features

        say(f"{self.name}: {convert_features(self.name, self.files)}")
