"""A work directory: its config, its stages, what is done and what is left."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from binlatent import config as config_lib
from binlatent import mesh as mesh_lib
from binlatent import previews
from binlatent.checkpoint import checkpoint_steps, fingerprint, load_ema, versions
from binlatent.console import say, warn
from binlatent.data.codes import CodeSource
from binlatent.data.encoding import write_codes
from binlatent.data.loader import Validation, batch_spec, train_batches
from binlatent.data.manifest import Manifest
from binlatent.data.splits import Splits, check_conditions, open_splits
from binlatent.data.texts import CaptionedCodes
from binlatent.errors import UserError
from binlatent.files import user_path
from binlatent.images import comparison_grid, save_image
from binlatent.nets.autoencoder import decoder_params
from binlatent.pipeline import Pipeline
from binlatent.sampling.conditions import conditioning
from binlatent.stored.halves import check_decoder, check_teacher
from binlatent.text.encoder import check_record
from binlatent.text.named import open_encoder
from binlatent.train.lock import lock
from binlatent.train.loop import Hooks, train
from binlatent.train.resume import check_codes_stay, start_from
from binlatent.train.state import Trained, TrainState
from binlatent.typing import PyTree

STAGES = ("autoencoder", "prior")  # of `run`
ALL_STAGES = (*STAGES, "decoder", "student")

# The split of the data into training and validation is the same for every seed, so that runs can be compared.
SPLIT_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """One run of both stages in one folder.

    Attributes:
      workdir: the folder, local or remote.
      config: what is run.
    """

    workdir: epath.Path
    config: ConfigDict

    @classmethod
    def open(cls, workdir: epath.PathLike, config: ConfigDict | None = None) -> "Experiment":
        """Opens a work directory, or a new one where a config is given: training makes it, once the data are there.

        A config that is given takes the place of the one in the work directory. Keys of a stage may change until it has a
        checkpoint; see `config.changes`.

        Raises:
          UserError: there is neither a work directory nor a config, the config is not valid, or keys differ that are fixed.
        """
        path = (workdir := user_path(workdir)) / "config.json"
        if config is None:
            if not path.exists():
                raise UserError(f"{workdir} is no work directory: `binlatent run --config NAME` writes its config.json")
            return cls(workdir=workdir, config=config_lib.read(path))
        config_lib.check(config)
        experiment = cls(workdir=workdir, config=config_lib.from_json(config_lib.to_json(config)))
        if path.exists():
            old, trained = config_lib.read(path), [stage for stage in ALL_STAGES if experiment.step(stage)]
            for text in config_lib.check_changes(workdir, old, config, trained):
                warn(text)
            if config_lib.differences(old, config):
                experiment.save_config()
        return experiment

    def save_config(self) -> None:
        """Writes `config.json`, which makes the folder a work directory.

        Raises:
          UserError: the folder cannot be written, or a stage in it is being trained, by a config that would no longer be there.
        """
        if jax.process_index() == 0:
            try:
                self.workdir.mkdir(parents=True, exist_ok=True)
                with contextlib.ExitStack() as held:
                    for folder in (self.workdir / stage for stage in ALL_STAGES):
                        if folder.exists():
                            held.enter_context(lock(folder))
                    config_lib.write(self.workdir / "config.json", self.config)
            except OSError as error:
                raise UserError(f"the work directory {self.workdir} cannot be written: {error}") from error

    def step(self, stage: str) -> int:
        """Steps that a stage has a checkpoint of; 0 for none."""
        return max(checkpoint_steps(self.workdir / stage / "checkpoints"), default=0)

    def done(self, stage: str) -> bool:
        """Whether a stage has been trained to its last step, and the checkpoint of that step restores."""
        num_steps = self._num_steps(stage)
        return self.step(stage) >= num_steps and self._restore(stage)[0] >= num_steps

    def _num_steps(self, stage: str) -> int:
        return config_lib.build_training(self.config, stage).num_steps

    @functools.cached_property
    def _load(self):
        """`load_ema` of (stage, step); what it read last is kept, since stages that follow each other read the same."""
        return functools.lru_cache(maxsize=1)(lambda stage, step: load_ema(self.workdir / stage / "checkpoints"))

    def _restore(self, stage: str) -> tuple[int, PyTree, dict[str, Any]]:
        return self._load(stage, self.step(stage))

    def _trained_autoencoder(self) -> Trained:
        step, params, _ = self._restore("autoencoder")
        if step < (num_steps := self._num_steps("autoencoder")):
            warn(
                f"the autoencoder has {step} of {num_steps} steps: train it to its end before anything learns its codes"
            )
        return Trained(net=config_lib.build_autoencoder(self.config), params=params["autoencoder"], step=step)

    @property
    def codes(self) -> epath.Path:
        return self.workdir / "codes"

    def splits(self) -> Splits:
        """The data set."""
        splits = open_splits(config_lib.build_data(self.config), seed=SPLIT_SEED)
        check_conditions(splits, labels_with_embeddings=False)
        return splits

    def run(self) -> None:
        """Every stage in order; what is done is skipped, what was interrupted is resumed."""
        self.train("autoencoder")
        self.encode()
        self.train("prior")
        self.show()

    def train(
        self, stage: str, *, init_from: epath.PathLike | None = None, profile: tuple[int, int] | None = None
    ) -> None:
        """Trains one stage to its last step.

        Args:
          init_from: another work directory, whose EMA parameters a fresh run starts from.
          profile: (first, last) steps to trace.

        Raises:
          UserError: see `train.loop.train`; also no autoencoder for the decoder, no codes for the prior, no prior for the
            student, or parameters that do not fit.
        """
        if stage == "student" and self.step("student") and self.step("prior"):  # also where it is done
            check_teacher(self.workdir, self._restore(stage)[2], fingerprint(self._restore("prior")[1]["denoiser"]))
        if self.done(stage):
            say(f"{stage}: done ({self.step(stage)} steps)")
            return
        learned = [each for each in ALL_STAGES[1:] if self.step(each)] if stage == "autoencoder" else []
        if learned and self.step(stage):
            codes, num_steps = {each: self._restore(each)[2]["autoencoder"] for each in learned}, self._num_steps(stage)
            _, params, saved = self._restore(stage)
            check_codes_stay(self.workdir, codes, fingerprint(params[stage]), saved["num_steps"], num_steps)
        if stage == "prior" and self.step("student"):
            warn(f"the student in {self.workdir} is of the prior as it was: train it again after this")
        splits, mesh = self.splits(), config_lib.build_mesh(self.config)
        for each in {*STAGES, stage}:  # found before anything is trained
            config_lib.build_fitting_training(self.config, each, len(splits.train), mesh)
        made, sources, metadata, preview = getattr(self, f"_{stage}_stage")(splits)
        if init_from is not None and not self.step(stage):
            load_ema(user_path(init_from) / stage / "checkpoints")  # so that a wrong one leaves nothing behind
        if not (self.workdir / "config.json").exists():
            self.save_config()
        training = config_lib.build_fitting_training(self.config, stage, len(sources[0]), mesh)
        options = config_lib.build_data(self.config)
        asked = config_lib.build_training(self.config, stage).batch_size
        if training.batch_size < asked:
            say(f"{stage}: batch size {training.batch_size} instead of {asked}, for {len(sources[0])} examples")
        shards = {"process_index": jax.process_index(), "process_count": jax.process_count()}
        train(
            made,
            name=stage,
            training=training,
            batch_spec=batch_spec(sources[0], options, training.batch_size),
            train_batches=lambda step: train_batches(
                sources[0], options, seed=self.config.seed, batch_size=training.batch_size, start_step=step, **shards
            ),
            eval_batches=Validation(
                sources[1], options, batch_size=training.batch_size, num_batches=training.evaluate_batches, **shards
            ),
            mesh=mesh,
            seed=self.config.seed,
            folder=self.workdir / stage,
            metadata=metadata | {"stage": stage, "config": config_lib.to_json(self.config), "versions": versions()},
            hooks=Hooks(preview=preview, initial=self._initial(stage, init_from), profile=profile),
        )
        self._load.cache_clear()  # a checkpoint that did not restore has been written anew

    def _initial(self, stage: str, init_from: epath.PathLike | None) -> Callable[[TrainState], TrainState] | None:
        """What a fresh run of a stage starts from; None for random parameters."""
        if init_from is not None:
            return lambda state: start_from(state, init_from, stage)
        source = {"decoder": "autoencoder", "student": "prior"}.get(stage)
        return source and (lambda state: start_from(state, self.workdir, stage, source))

    def _autoencoder_stage(self, splits: Splits):
        stage = config_lib.build_autoencoder_stage(self.config)

        def reconstruct(state: TrainState, images: np.ndarray) -> np.ndarray:
            return self._pipeline(autoencoder=Trained(net=stage.net, params=state.ema["autoencoder"])).reconstruct(
                images
            )

        metadata, preview = {"data": splits.fingerprint}, self._comparison(splits, reconstruct)
        return stage, (splits.train, splits.validation), metadata, preview

    def _decoder_stage(self, splits: Splits):
        autoencoder = self._trained_autoencoder()
        metadata = {"data": splits.fingerprint, "autoencoder": fingerprint(autoencoder.params)}
        if self.step("decoder"):
            check_decoder(self.workdir, self._restore("decoder")[2], metadata["autoencoder"])
        decoder = decoder_params(autoencoder.params)
        encoder = {name: tree for name, tree in autoencoder.params.items() if name not in decoder}
        stage = config_lib.build_decoder_stage(self.config, jax.device_get(encoder))  # which any mesh takes

        def reconstruct(state: TrainState, images: np.ndarray) -> np.ndarray:
            params = autoencoder.params | state.ema["decoder"]
            return self._pipeline(autoencoder=Trained(net=stage.net, params=params)).reconstruct(images)

        return stage, (splits.train, splits.validation), metadata, self._comparison(splits, reconstruct)

    def _prior_stage(self, splits: Splits):
        autoencoder = self._trained_autoencoder()
        sources, metadata = self._sources(splits, autoencoder)
        if self.step("prior"):  # found here, since the parameters of another encoder's prior have other shapes
            check_record(load_ema(self.workdir / "prior" / "checkpoints")[2].get("text"), metadata["text"])
        stage = config_lib.build_prior_stage(self.config, tuple(metadata["code_shape"]), conditioning(metadata))
        return stage, sources, metadata, self._preview(stage.net, autoencoder, metadata, sources[1])

    def _student_stage(self, splits: Splits):
        autoencoder = self._trained_autoencoder()
        sources, metadata = self._sources(splits, autoencoder)
        if not self.step("prior"):
            raise UserError(f"{self.workdir} has no prior yet, which a student is made of: `binlatent run` trains it")
        step, params, prior = self._restore("prior")
        if step < (num_steps := self._num_steps("prior")):
            warn(f"the prior has {step} of {num_steps} steps: a student is of the prior as it is now")
        check_record(prior.get("text"), metadata["text"])
        if prior["autoencoder"] not in ("", metadata["autoencoder"]):
            raise UserError(
                f"the prior in {self.workdir} is of other codes: move the folder 'prior' away and train it again"
            )
        metadata["prior"] = fingerprint(params["denoiser"])
        teacher = jax.device_get(params["denoiser"])  # which any mesh takes
        stage = config_lib.build_student_stage(
            self.config, tuple(metadata["code_shape"]), conditioning(metadata), teacher
        )
        metadata["student"] = {"steps": stage.steps, "guidance": stage.guidance}
        return stage, sources, metadata, self._preview(stage.net, autoencoder, metadata, sources[1])

    def _sources(self, splits: Splits, autoencoder: Trained):
        """The codes of both splits, with texts where there are some, and what a checkpoint of their prior says of them."""
        expected = {"expected_fingerprint": fingerprint(autoencoder.params), "expected_data": splits.fingerprint}
        expected["expected_options"] = config_lib.build_codes(self.config)
        sources = tuple(CodeSource(self.codes, split, **expected) for split in ("train", "validation"))
        spec, text = sources[0].spec, None
        if spec.captions:
            encoder = open_encoder(config_lib.build_text(self.config), sources[0].captions)
            sources, text = tuple(CaptionedCodes(source, encoder) for source in sources), encoder.record
        return sources, {
            "data": spec.data,
            "autoencoder": spec.autoencoder,
            "code_shape": list(spec.code_shape),
            "num_classes": spec.num_classes,
            "class_names": list(spec.class_names),
            "condition_shape": list(spec.condition_shape),
            "text": text,
        }

    def _preview(
        self, net: nn.Module, autoencoder: Trained, metadata: dict[str, Any], source: CodeSource | CaptionedCodes
    ):
        """The preview of samples: (state, step) → a picture."""

        def preview(state: TrainState, step: int) -> np.ndarray:
            prior = Trained(net=net, params=state.ema["denoiser"], step=step, metadata=metadata)
            return previews.samples(self._pipeline(autoencoder=autoencoder, prior=prior), source)

        return preview

    def encode(self) -> Manifest:
        """Writes the packed codes of the data set; shards that are there already are kept.

        Raises:
          UserError: there is no autoencoder, or data cannot be read.
        """
        autoencoder = self._trained_autoencoder()
        pipeline = self._pipeline(autoencoder=autoencoder)
        return write_codes(
            self.codes,
            self.splits(),
            config_lib.build_data(self.config),
            config_lib.build_codes(self.config),
            pipeline.encode,
            autoencoder=fingerprint(autoencoder.params),
            code_shape=pipeline.code_shape,
            seed=self.config.seed,
            drawn=not autoencoder.net.deterministic,  # otherwise its probabilities mean nothing to the decoder
        )

    def _comparison(self, splits: Splits, reconstruct: Callable[[TrainState, np.ndarray], np.ndarray]):
        """The preview of reconstructions: (state, step) → validation images, each above its reconstruction."""
        images = previews.images_of(splits, self.config)
        return lambda state, step: comparison_grid(images, reconstruct(state, images))

    def show(self) -> None:
        """Writes `samples/samples.png` and `samples/reconstructions.png` of the trained model."""
        pipeline = Pipeline.load(self.workdir)
        folder = self.workdir / "samples"
        validation = CodeSource(self.codes, "validation")
        if validation.spec.captions:
            validation = CaptionedCodes(validation, pipeline.text_encoder)
        samples = previews.samples(pipeline, validation)
        images = previews.images_of(self.splits(), self.config)
        restored = comparison_grid(images, pipeline.reconstruct(images))
        if jax.process_index() != 0:
            return
        try:
            save_image(folder / "samples.png", samples)
            save_image(folder / "reconstructions.png", restored)
        except OSError as error:  # a finished run that is kept read-only
            warn(f"the pictures in {folder} stay as they are: {error}")
        say(
            f"samples: {folder / 'samples.png'}\nreconstructions (each under its original): {folder / 'reconstructions.png'}"
        )

    def _pipeline(self, *, autoencoder: Trained | None = None, prior: Trained | None = None) -> Pipeline:
        """A pipeline on this process's own devices; every process must make it, since parameters are gathered."""
        mesh = mesh_lib.MeshShape().build(jax.local_devices())

        def here(half: Trained | None) -> Trained | None:
            return half and dataclasses.replace(half, params=mesh_lib.gather(half.params, mesh))

        return Pipeline(config=self.config, autoencoder=here(autoencoder), prior=here(prior), mesh=mesh)
