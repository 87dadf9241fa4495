"""`binlatent pack`, `export` and `demo`: a trained model for others."""

import dataclasses
import importlib.util
from typing import Any

from binlatent.cli import flags
from binlatent.console import say
from binlatent.errors import UserError
from binlatent.sampling.options import SamplingOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pack(flags.Command):
    """Write a trained model, without what only training needs, as one file that `binlatent.load` opens.

    Attributes:
      workdir: the run's folder.
      out: a file whose name ends in .safetensors.
      student: with the prior's student in place of the prior.
    """

    workdir: str = flags.flag(metavar="DIR")
    out: str = flags.flag(metavar="FILE")
    student: bool = False

    def run(self) -> None:
        import jax

        from binlatent.stored.halves import open_halves, pack_halves
        from binlatent.stored.pack import write_pack

        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        halves = open_halves(self.workdir, sharding, student=self.student)
        pack = pack_halves(halves)
        write_pack(self.out, pack)
        size = sum(x.nbytes for x in jax.tree.leaves(pack.params))
        stages = " and ".join(f"{stage} at step {found['step']}" for stage, found in pack.stages.items())
        say(f"{stages}, {size / 1e6:.1f} MB of parameters: {self.out}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(flags.Command):
    """Write a trained model as serialized functions and named arrays that run with JAX alone, on CPU, GPU and TPU.

    Attributes:
      workdir: the run's folder, or a packed file.
      out: a new or empty folder; its run.py makes images.
      student: with the prior's student in place of the prior.
    """

    workdir: str = flags.flag(metavar="DIR")
    out: str = flags.flag(metavar="DIR")
    student: bool = False
    sampling: dict[str, Any] = flags.changes(SamplingOptions)

    def run(self) -> None:
        from binlatent.export.write import export_model
        from binlatent.pipeline import Pipeline

        model = Pipeline.load(self.workdir, student=self.student)
        manifest = export_model(model, self.out, model.options(**self.sampling))
        for name, function in manifest["functions"].items():
            arguments, results = (
                ", ".join(f"{entry['name']} {entry['dtype']}{entry['shape']}" for entry in function[key])
                for key in ("arguments", "results")
            )
            say(f"{name}: params, {arguments} → {results}")
        makes = f"; `python {self.out}/run.py` makes images" if "sample" in manifest["functions"] else ""
        say(f"{self.out}: see its manifest.json{makes}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demo(flags.Command):
    """Show a trained model as a page in the browser: samples, the way from noise, inpainting, variations,
    interpolation.

    Attributes:
      workdir: the run's folder, or a packed file.
      host: address to listen on; the default can be reached from this machine only.
      port: port to listen on; 0 takes a free one.
    """

    workdir: str = flags.flag(metavar="DIR")
    host: str = "127.0.0.1"
    port: int = 7860

    def run(self) -> None:
        for name in ("starlette", "uvicorn"):
            if importlib.util.find_spec(name) is None:
                raise UserError(f"the page needs {name}: `pip install 'binlatent[demo]'`")
        from binlatent.demo.run import serve

        serve(self.workdir, host=self.host, port=self.port)
