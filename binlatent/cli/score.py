"""`binlatent evaluate`, `sweep`, `reference` and `train-classifier`: scores of trained models."""

import dataclasses
from typing import TYPE_CHECKING, Any

from binlatent.cli import flags
from binlatent.console import say
from binlatent.errors import UserError
from binlatent.evaluate.options import EvaluationOptions
from binlatent.sampling.options import SamplingOptions

if TYPE_CHECKING:
    from binlatent.evaluate.evaluation import Evaluation

SWEPT = ("steps", "guidance", "temperature", "posterior")  # axes of a sweep, `evaluate.sweep.AXES`
PARTS = ("reconstruction", "code", "likelihood", "generation", "report")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored(flags.Command):
    """The common flags of commands that compute scores.

    Attributes:
      workdir: the run's folder.
      features: comma-separated feature networks: inception, inception-pytorch-fid, classifier, or .py files with
        features(images) (default: inception if its weights are present, and classifier if one was trained).
      batch_size: images at a time; does not change the scores.
    """

    workdir: str = flags.flag(metavar="DIR")
    features: tuple[str, ...] = flags.flag((), metavar="N,N")
    batch_size: int = 64

    def open(self, reference: str | None = None, *, student: bool = False) -> "Evaluation":
        from binlatent.evaluate.evaluation import Evaluation

        given = {"features": self.features, "batch_size": self.batch_size, "reference": reference, "student": student}
        return Evaluation.open(self.workdir, **given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Scored):
    """Score a trained work directory: scores.json and report.html.

    Attributes:
      only: comma-separated: reconstruction, code, likelihood, generation, report (default: all).
      again: score finished parts again.
      reference: a file of `binlatent reference` (default: computed from the data).
      student: score the samples of the prior's student: student_scores.json and student_report.html.
    """

    only: tuple[str, ...] = flags.flag((), metavar="P,P")
    again: bool = False
    reference: str | None = flags.flag(None, metavar="FILE")
    student: bool = False
    options: EvaluationOptions = flags.nested(EvaluationOptions, without=("sampling",))
    sampling: dict[str, Any] = flags.changes(SamplingOptions)

    def run(self) -> None:
        from binlatent.evaluate.report.sections import write_report
        from binlatent.evaluate.result import print_parts

        if unknown := [name for name in self.only if name not in PARTS]:
            raise UserError(f"--only {','.join(unknown)}: expected some of {', '.join(PARTS)}")
        evaluation = self.open(self.reference, student=self.student)
        options = dataclasses.replace(self.options, sampling=self.sampling)
        if self.only != ("report",):
            parts = evaluation.run([name for name in self.only if name != "report"], options, again=self.again)
            print_parts(parts, evaluation.skipped)
            say(f"scores: {evaluation.scores_file}")
        say(f"report: {write_report(evaluation, seed=options.seed)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(Scored):
    """Score samples over a grid of steps × guidance × temperature × posterior, each with comma-separated values.

    Attributes:
      reference: a file of `binlatent reference` (default: computed from the data).
      student: score the samples of the prior's student: student_sweep.json and student_report.html.
    """

    reference: str | None = flags.flag(None, metavar="FILE")
    student: bool = False
    options: EvaluationOptions = flags.nested(
        EvaluationOptions, without=("sampling", "likelihood_num", "likelihood_steps"), num=2000
    )
    sampling: dict[str, Any] = flags.changes(SamplingOptions, many=SWEPT)

    def run(self) -> None:
        from binlatent.evaluate.report.sections import write_report
        from binlatent.evaluate.sweep import Grid, print_rows, sweep
        from binlatent.sampling.inputs import steps_of

        others = {name: value for name, value in self.sampling.items() if name not in SWEPT}
        options = dataclasses.replace(self.options, sampling=others)
        evaluation = self.open(self.reference, student=self.student)
        asked = {axis: self.sampling[axis] for axis in SWEPT if axis in self.sampling}
        if evaluation.pipeline.student:
            asked = {"steps": tuple(steps_of(evaluation.pipeline.student))} | asked
        grid = Grid(**asked)
        print_rows(sweep(evaluation, grid, options))
        say(f"table: {evaluation.file('sweep.json')}")
        say(f"report: {write_report(evaluation, seed=options.seed)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference(Scored):
    """Compute the statistics of real images that samples are compared with.

    Attributes:
      out: also write them to this .npz file (default: only the work directory has them).
    """

    out: str | None = flags.flag(None, metavar="FILE")
    options: EvaluationOptions = flags.nested(
        EvaluationOptions, without=("sampling", "likelihood_num", "likelihood_steps", "num", "seed")
    )

    def run(self) -> None:
        evaluation = self.open()
        if not evaluation.networks:
            raise UserError("; ".join(evaluation.skipped.values()))
        names = [network.name for network in evaluation.networks]
        if self.out and len(names) > 1:
            raise UserError(f"--out names one file: choose one of --features {', '.join(names)}")
        for network in evaluation.networks:
            reference = evaluation.reference(network, self.options)
            if self.out:
                reference.save(self.out)
            images = f"{reference.description['images']} {reference.description['split']} images under {network.name}"
            say(f"reference {reference.hash}: {images}, {self.out or evaluation.folder}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainClassifier(flags.Command):
    """Train a small classifier whose features score samples where Inception's weights are missing.

    Attributes:
      workdir: the run's folder.
      num_steps: optimizer steps.
      batch_size: images per step.
      seed: of the initial parameters and the order of images.
    """

    resumable = True

    workdir: str = flags.flag(metavar="DIR")
    num_steps: int = 2000
    batch_size: int = 128
    seed: int = 0

    def run(self) -> None:
        from binlatent.evaluate.classifier import train_classifier

        train_classifier(self.workdir, num_steps=self.num_steps, batch_size=self.batch_size, seed=self.seed)
