"""The evaluation of a work directory: chooses networks, images and parts, and stores the scores."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np
from etils import epath

from binlatent import config as config_lib
from binlatent.checkpoint import checkpoint_steps, fingerprint, versions
from binlatent.console import progress, say
from binlatent.data import captions as caption_files
from binlatent.data.loader import captioned_images, eval_batches
from binlatent.data.splits import Splits
from binlatent.data.spread import Spread
from binlatent.errors import UserError
from binlatent.evaluate.code import code
from binlatent.evaluate.features import FeatureNetwork, inception_network, network_of
from binlatent.evaluate.generation import generation
from binlatent.evaluate.likelihood import CHUNK, likelihood
from binlatent.evaluate.options import EvaluationOptions
from binlatent.evaluate.reconstruction import reconstruction
from binlatent.evaluate.reference import Reference, make_reference
from binlatent.evaluate.result import EvaluationResult, append_record, plain, read_parts, write_parts
from binlatent.evaluate.statistics import ScoreError
from binlatent.experiment import Experiment
from binlatent.images import to_uint8
from binlatent.nets import weights
from binlatent.pipeline import Pipeline
from binlatent.sampling.conditions import Conditions, conditioning

PARTS = ("reconstruction", "code", "likelihood", "generation")
NEEDS = {"reconstruction": "autoencoder", "code": "autoencoder", "likelihood": "prior", "generation": "prior"}
CONDITIONS = 4096  # with embeddings: the number of validation images whose conditions are given to samples in turn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A trained work directory, ready to be scored.

    Attributes:
      experiment: the work directory.
      pipeline: its model.
      networks: feature networks of the Fréchet distance and the other scores on features.
      skipped: scores that will be missing, with the reason.
      reference_file: a file of `binlatent reference` to use instead of computing one.
    """

    experiment: Experiment
    pipeline: Pipeline
    networks: tuple[FeatureNetwork, ...]
    skipped: dict[str, str]
    reference_file: str | None = None

    @classmethod
    def open(
        cls,
        workdir: epath.PathLike,
        *,
        features: Sequence[str] = (),
        batch_size: int = 64,
        reference: str | None = None,
        student: bool = False,
    ) -> "Evaluation":
        """Opens a work directory with the named feature networks.

        Args:
          features: `inception`, `inception-pytorch-fid`, `classifier` or paths of .py files. If empty: Inception if its
            weights are present, and the classifier if one was trained; a missing Inception is then reported as skipped.
          student: score the prior's student in place of the prior, into files of its own.

        Raises:
          UserError: there is no work directory, nothing is trained, or a named network is missing.
        """
        if jax.process_count() > 1:
            raise UserError(
                "evaluation runs in one process, on all devices of its machine; start it without --distributed"
            )
        experiment = Experiment.open(workdir)
        skipped, networks = {}, []
        for name in features:
            networks.append(network_of(experiment.workdir, name))
        if not features:
            try:
                networks.append(inception_network())
            except UserError as error:
                skipped["FID, sFID, KID, Inception Score, rFID"] = str(error)
            if checkpoint_steps(experiment.workdir / "classifier" / "checkpoints"):
                networks.append(network_of(experiment.workdir, "classifier"))
        names = [network.name for network in networks]
        if len(set(names)) < len(names):
            raise UserError(f"feature networks {', '.join(names)}: name each only once")
        pipeline = Pipeline.load(workdir, batch_size=batch_size, student=student)
        found = {"pipeline": pipeline, "networks": tuple(networks), "skipped": skipped, "reference_file": reference}
        return cls(experiment=experiment, **found)

    @property
    def folder(self) -> epath.Path:
        """The folder of references and unfinished passes."""
        return self.experiment.workdir / "evaluation"

    def file(self, name: str) -> epath.Path:
        """A file of results in the work directory; of a student's it is `student_…`."""
        return self.experiment.workdir / (f"student_{name}" if self.pipeline.student else name)

    @property
    def scores_file(self) -> epath.Path:
        return self.file("scores.json")

    @cached_property
    def splits(self) -> Splits:
        return self.experiment.splits()

    @cached_property
    def data(self):
        return config_lib.build_data(self.experiment.config)

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        halves = {name: getattr(self.pipeline, name) for name in ("autoencoder", "prior")}
        return {name: fingerprint(half.params) for name, half in halves.items() if half}

    def _model_settings(self, part: str) -> dict[str, Any]:
        """What is evaluated: the models that a part needs, the data and the software."""
        halves = ("autoencoder", "prior")[: 1 if NEEDS[part] == "autoencoder" else 2]
        return {
            "checkpoint_steps": {name: getattr(self.pipeline, name).step for name in halves},
            "weights": {name: self._fingerprints[name] for name in halves},
            "data": self.splits.fingerprint,
            "versions": versions(),
        }

    # --- the parts ---

    def run(
        self, only: Sequence[str] = (), options: EvaluationOptions | None = None, *, again: bool = False
    ) -> dict[str, EvaluationResult]:
        """Scores the work directory and writes `scores.json` after every part.

        A part that is already there with the same settings is not computed again.

        Args:
          only: some of `PARTS`; if empty, all that the trained stages allow.
          again: compute it again nevertheless.

        Returns:
          All parts of `scores.json`.

        Raises:
          UserError: a part is unknown, a stage is not trained, or images or features cannot be scored.
        """
        options = options or EvaluationOptions()
        for name in only:
            if name not in PARTS:
                raise UserError(f"no part {name!r} of an evaluation; there are {', '.join(PARTS)}")
        available = {name for name in PARTS if getattr(self.pipeline, NEEDS[name]) is not None}
        if self.pipeline.autoencoder is None:
            available -= {"likelihood", "generation"}
        if self.pipeline.student:  # which has neither a likelihood nor an autoencoder of its own
            available &= {"generation"}
        for name in only:
            if name not in available:
                missing = "a trained autoencoder" + ("" if NEEDS[name] == "autoencoder" else " and prior")
                raise UserError(f"{name} needs " + ("a model without --student" if self.pipeline.student else missing))
        parts = read_parts(self.scores_file)
        for name in only or [name for name in PARTS if name in available]:
            if name == "generation" and not self.networks:
                if only:
                    raise UserError("; ".join(self.skipped.values()))
                say(
                    f"generation: skipped, no samples are drawn: there is no feature network ({'; '.join(self.skipped.values())})"
                )
                continue
            requested = plain(self.requested(name, options))
            stored = parts.get(name)
            if stored and not again and all(stored.settings.get(key) == value for key, value in requested.items()):
                say(f"{name}: done with these settings")
                continue
            part = self.part(name, options)
            parts = read_parts(self.scores_file) | {name: part}  # another evaluation may have written meanwhile
            write_parts(self.scores_file, parts)
            half = getattr(self.pipeline, NEEDS[name])
            stage = "student" if self.pipeline.student else NEEDS[name]
            append_record(self.experiment.workdir / stage, half.step, parts[name])
        return parts

    def part(self, name: str, options: EvaluationOptions) -> EvaluationResult:
        """Computes one part. Only references and the state of an unfinished pass are written.

        Raises:
          UserError: images or features cannot be scored.
        """
        started = time.perf_counter()
        try:
            part = getattr(self, f"_{name}")(options, plain(self.requested(name, options)))
        except ScoreError as error:
            raise UserError(f"{name}: {error}") from error
        settings = part.settings | {"devices": f"{self.pipeline.mesh.size} × {jax.devices()[0].device_kind}"}
        return dataclasses.replace(part, settings=settings, seconds=time.perf_counter() - started)

    def requested(self, name: str, options: EvaluationOptions) -> dict[str, Any]:
        """The settings that a part's scores depend on, as far as they are known beforehand."""
        networks = [network.description for network in self.networks]
        if name == "reconstruction":
            own = {"split": "validation", "feature_networks": networks, "lpips": weights.path_of("lpips").exists()}
        elif name == "code":
            own = {"split": "validation", "code": "thresholded"}
        elif name == "likelihood":
            own = {
                "split": "validation", "seed": options.seed, "spread_images": options.likelihood_num,
                "likelihood_steps": options.likelihood_steps, "posterior": "mixture", "condition": self._condition_kind,
            }  # fmt: skip
        else:
            own = {
                "samples": options.num, "seed": options.seed, "condition": self._condition_kind, "images": "rounded to uint8",
                "sampling": dataclasses.asdict(self.pipeline.options(**options.sampling)), "feature_networks": networks,
                "reference_split": options.reference_split, "reference_images": options.reference_num or "all",
                "reference_file": self.reference_file,
            }  # fmt: skip
        return self._model_settings(name) | own

    @property
    def _condition_kind(self) -> str:
        metadata = self.pipeline.prior.metadata
        if metadata.get("text"):
            return "captions of validation images spread over the set, in turn"
        if metadata["condition_shape"]:
            return "embeddings of validation images spread over the set, in turn"
        return "labels, in turn" if metadata["num_classes"] else "none"

    def _reconstruction(self, options: EvaluationOptions, requested: dict[str, Any]) -> EvaluationResult:
        skipped = dict(self.skipped)
        try:
            lpips = weights.load("lpips")
        except UserError as error:
            lpips, skipped["LPIPS"] = None, str(error)
        with progress(len(self.splits.validation), "reconstruction") as bar:
            return reconstruction(
                self.pipeline.reconstruct, self._validation(), networks=list(self.networks), lpips=lpips,
                mesh=self.pipeline.mesh, batch_size=self.pipeline.batch_size, settings=requested, skipped=skipped,
                progress=bar.update,
            )  # fmt: skip

    def _code(self, options: EvaluationOptions, requested: dict[str, Any]) -> EvaluationResult:
        with progress(len(self.splits.validation), "code") as bar:
            return code(self.pipeline.encode, self._validation(), settings=requested, progress=bar.update)

    def _likelihood(self, options: EvaluationOptions, requested: dict[str, Any]) -> EvaluationResult:
        total = min(options.likelihood_num, len(self.splits.validation))

        def terms(codes, seed, condition):
            return self.pipeline.elbo_terms(codes, seed, condition=condition, steps=options.likelihood_steps)

        with progress(total, "likelihood") as bar:
            chunks = self._codes(total)
            return likelihood(terms, chunks, seed=options.seed, settings=requested, progress=bar.update)

    def _codes(self, num: int) -> Iterator[tuple[np.ndarray, Conditions | None]]:
        """Codes of validation images spread evenly over the set, `CHUNK` at a time, with their conditions."""
        source, options = Spread(self.splits.validation, num), {"batch_size": CHUNK, "captions": self.splits.captions}
        for batch in eval_batches(source, self.data, **options):
            if batch["mask"].any():
                yield self.pipeline.encode(batch["image"][batch["mask"]]), self._condition_of(batch)

    def _condition_of(self, batch: dict[str, np.ndarray]) -> Conditions | None:
        """The conditions of the examples of a batch of images that count."""
        wanted, mask = conditioning(self.pipeline.prior.metadata), batch["mask"]
        given: dict[str, Any] = {"labels": batch["label"][mask].tolist()} if wanted.num_classes else {}
        if self.pipeline.prior.metadata.get("text"):
            given["prompts"] = [caption_files.split(text)[0] for text in batch["caption"][mask]]
        elif wanted.texts or wanted.vector_width:
            given["condition"] = batch["condition"][mask]
        return self.pipeline.conditions(**given)

    def _validation(self) -> Iterator[dict[str, np.ndarray]]:
        return iter(eval_batches(self.splits.validation, self.data, batch_size=self.pipeline.batch_size))

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """64 of the captions that samples are given in turn; none without texts."""
        if not self.pipeline.prior.metadata.get("text"):
            return ()
        return tuple(captioned_images(self.splits.validation, self.data, 64)[1])

    def conditions(self) -> Conditions | None:
        """Labels, captions or embeddings that samples are given in turn; None for an unconditional model."""
        wanted = conditioning(self.pipeline.prior.metadata)
        if wanted.texts or wanted.vector_width:
            source, options = Spread(self.splits.validation, CONDITIONS), {"captions": self.splits.captions}
            batches = eval_batches(source, self.data, batch_size=256, **options)
            parts = [{n: x[batch["mask"]] for n, x in batch.items() if n != "image"} for batch in batches]
            return self._condition_of({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        return self.pipeline.conditions(labels=np.arange(wanted.num_classes)) if wanted else None

    def _generation(self, options: EvaluationOptions, requested: dict[str, Any]) -> EvaluationResult:
        references = {network.name: self.reference(network, options) for network in self.networks}
        given = self.conditions()
        classes = None if given is None else given.values.label

        def sample(position: int):
            batches = self.pipeline.sample_batches(
                seed=options.seed, num=options.num - position, start=position, condition=given, **options.sampling
            )
            for part in batches if position < options.num else ():
                if not np.isfinite(part.images).all():
                    raise ScoreError("samples contain NaN or infinity; the model's parameters are broken")
                next_position = position + len(part.images)
                labels = None if classes is None else classes[np.arange(position, next_position) % len(classes)]
                yield to_uint8(part.images), labels, next_position
                position = next_position

        with progress(options.num, "generation") as bar:
            return generation(
                sample, num=options.num, networks=list(self.networks), references=references, mesh=self.pipeline.mesh,
                batch_size=self.pipeline.batch_size, folder=self.folder / "generation", settings=requested,
                class_names=() if classes is None else self.splits.class_names, progress=bar.update,
            )  # fmt: skip

    def reference(self, network: FeatureNetwork, options: EvaluationOptions) -> Reference:
        """The reference for a feature network: from the given file, or else computed or read from an earlier evaluation.

        Raises:
          UserError: the given file is for another network or another image shape.
        """
        if self.reference_file:
            reference = Reference.load(self.reference_file)
            shape = [self.data.resolution, self.data.resolution, self.data.channels]
            for what, theirs, ours in (
                ("feature network", reference.description["network"], network.description),
                ("image shape", reference.description["shape"], shape),
            ):
                if theirs != ours:
                    raise UserError(f"{self.reference_file}: its {what} is {theirs}, but this evaluation has {ours}")
            return reference
        source = getattr(self.splits, options.reference_split)
        with progress(min(options.reference_num or len(source), len(source)), f"reference ({network.name})") as bar:
            return make_reference(
                self.splits, self.data, network, split=options.reference_split, num=options.reference_num,
                mesh=self.pipeline.mesh, folder=self.folder, batch_size=self.pipeline.batch_size, progress=bar.update,
            )  # fmt: skip
