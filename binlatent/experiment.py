"""A work directory: its config, its stages, what is done and what is left."""

import dataclasses
import importlib.metadata
import re
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from binlatent import config as config_lib
from binlatent import mesh as mesh_lib
from binlatent.checkpoint import checkpoint_steps, fingerprint, load_ema, load_parts
from binlatent.data.codes import CodeSource, CodeWriter, code_columns
from binlatent.data.loader import Validation, batch_spec, eval_batches, train_batches
from binlatent.data.manifest import CodeSpec, Manifest
from binlatent.data.sources.base import Source
from binlatent.data.splits import Splits, check_conditions, open_splits
from binlatent.errors import UserError
from binlatent.images import image_grid, save_image, to_uint8
from binlatent.pipeline import Pipeline
from binlatent.train.loop import Hooks, train
from binlatent.train.state import Trained, TrainState

STAGES = ("autoencoder", "prior")

# Keys that may change between two runs in one work directory: they do not change what has been learned so far.
MUTABLE = re.compile(
    r"(sampling|plan|mesh)\.|data\.(workers|path)$"
    r"|.*_training\.(num_steps|steps_per_call|micro_batches|log_every|evaluate_\w+|checkpoint_every|keep_\w+|on_nonfinite)$"
)
# The split of the data into training and validation is the same for every seed, so that runs can be compared.
SPLIT_SEED = 0
PREVIEWS = 64  # images of a preview


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    return {name: importlib.metadata.version(name) for name in ("binlatent", "jax", "jaxlib", "flax", "optax", "numpy")}


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
        """Opens a work directory, or makes it where a config is given.

        Raises:
          UserError: there is neither a work directory nor a config, the config is not valid, or it is not the one that
            the work directory was made with.
        """
        workdir = epath.Path(workdir)
        path = workdir / "config.json"
        if config is None:
            if not path.exists():
                raise UserError(f"{workdir} is no work directory: it has no config.json; give a --config to make one")
            return cls(workdir=workdir, config=config_lib.read(path))
        config_lib.check(config)
        if path.exists():
            different = config_lib.differences(config_lib.read(path), config)
            fixed = {key: values for key, values in different.items() if not MUTABLE.match(key)}
            if fixed:
                lines = [f"  {key}: {old!r} there, {given!r} asked for" for key, (old, given) in fixed.items()]
                raise UserError(
                    f"{workdir} was made with another config:\n"
                    + "\n".join(lines)
                    + "\nUse another --workdir, or the same config."
                )
        if jax.process_index() == 0:
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                config_lib.write(path, config)
            except OSError as error:
                raise UserError(f"the work directory {workdir} cannot be written: {error}") from error
        return cls(workdir=workdir, config=config_lib.from_json(config_lib.to_json(config)))

    # --- what is done ---

    def step(self, stage: str) -> int:
        """Steps that a stage has a checkpoint of; 0 for none."""
        return max(checkpoint_steps(self.workdir / stage / "checkpoints"), default=0)

    def done(self, stage: str) -> bool:
        """Whether a stage has been trained to its last step, and the checkpoint of that step restores."""
        num_steps = config_lib.build_training(self.config, stage).num_steps
        return self.step(stage) >= num_steps and load_ema(self.workdir / stage / "checkpoints")[0] >= num_steps

    @property
    def codes(self) -> epath.Path:
        return self.workdir / "codes"

    def splits(self) -> Splits:
        """The data set."""
        splits = open_splits(config_lib.build_data(self.config), seed=SPLIT_SEED)
        check_conditions(splits, labels_with_embeddings=False)
        return splits

    # --- the stages ---

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
          UserError: see `train.loop.train`; also no codes for the prior, or parameters that do not fit.
        """
        if self.done(stage):
            print(f"{stage}: done ({self.step(stage)} steps)")
            return
        make = {"autoencoder": self._autoencoder_stage, "prior": self._prior_stage}[stage]
        made, sources, metadata, preview = make()
        training = config_lib.build_training(self.config, stage)
        options = config_lib.build_data(self.config)
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
            mesh=config_lib.build_mesh(self.config),
            seed=self.config.seed,
            folder=self.workdir / stage,
            metadata=metadata
            | {
                "stage": stage,
                "config": config_lib.to_json(self.config),
                "versions": versions(),
            },
            hooks=Hooks(
                preview=preview,
                initial=None if init_from is None else lambda state: _start_from(state, init_from, stage),
                profile=profile,
            ),
        )

    def _autoencoder_stage(self):
        splits = self.splits()
        stage = config_lib.build_autoencoder_stage(self.config)
        images = self._images(splits.validation, PREVIEWS // 2)

        def preview(state: TrainState, step: int) -> np.ndarray:
            return self._compare(self._pipeline(autoencoder=_trained(stage.net, state.ema["autoencoder"])), images)

        return stage, (splits.train, splits.validation), {"data": splits.fingerprint}, preview

    def _prior_stage(self):
        step, params, _ = load_ema(self.workdir / "autoencoder" / "checkpoints")
        autoencoder = _trained(config_lib.build_autoencoder(self.config), params["autoencoder"], step)
        splits = self.splits()
        sources = tuple(
            CodeSource(
                self.codes,
                split,
                expected_fingerprint=fingerprint(autoencoder.params),
                expected_data=splits.fingerprint,
            )
            for split in ("train", "validation")
        )
        spec = sources[0].spec
        stage = config_lib.build_prior_stage(self.config, spec.code_shape, spec.num_classes, spec.condition_shape)
        metadata = {
            "data": spec.data,
            "autoencoder": spec.autoencoder,
            "code_shape": list(spec.code_shape),
            "num_classes": spec.num_classes,
            "class_names": list(spec.class_names),
            "condition_shape": list(spec.condition_shape),
        }

        def preview(state: TrainState, step: int) -> np.ndarray:
            prior = _trained(stage.net, state.ema["denoiser"], step, metadata)
            return self._sample_grid(self._pipeline(autoencoder=autoencoder, prior=prior), sources[1])

        return stage, sources, metadata, preview

    def encode(self) -> Manifest:
        """Writes the packed codes of the data set; shards that are there already are kept.

        Raises:
          UserError: there is no autoencoder, or data cannot be read.
        """
        step, params, _ = load_ema(self.workdir / "autoencoder" / "checkpoints")
        autoencoder = _trained(config_lib.build_autoencoder(self.config), params["autoencoder"], step)
        pipeline = self._pipeline(autoencoder=autoencoder)
        splits, options = self.splits(), config_lib.build_data(self.config)
        spec = CodeSpec(
            autoencoder=fingerprint(autoencoder.params),
            data=splits.fingerprint,
            code_shape=pipeline.code_shape,
            num_classes=splits.num_classes,
            class_names=splits.class_names,
            condition_shape=splits.condition_shape,
            captions=splits.captions,
            flips=self.config.codes.flips,
        )
        sources = {"train": splits.train, "validation": splits.validation}
        writer = CodeWriter(self.codes, spec, examples={name: len(source) for name, source in sources.items()})
        missing = writer.missing(jax.process_index(), jax.process_count())
        with _bar("encode", sum(writer.span(*shard)[1] for shard in missing), "image") as bar:
            for split, index in missing:
                start, limit = writer.span(split, index)
                with writer.shard(split, index) as write:
                    batches = eval_batches(
                        sources[split], options, batch_size=256, start=start, limit=limit, captions=spec.captions
                    )
                    for batch in batches:
                        write(**_packed(pipeline, batch, spec))
                        bar.update(int(batch["mask"].sum()))
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("codes written")
        manifest = writer.finish() if jax.process_index() == 0 else None
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("manifest written")
        if not missing:
            print("codes: done")
        return manifest or Manifest.load(self.codes)

    def show(self) -> None:
        """Writes `samples/samples.png` and `samples/reconstructions.png` of the trained model."""
        pipeline = Pipeline.load(self.workdir)
        folder = self.workdir / "samples"
        validation = CodeSource(self.codes, "validation")
        samples = self._sample_grid(pipeline, validation)
        restored = self._compare(pipeline, self._images(self.splits().validation, PREVIEWS // 2))
        if jax.process_index() != 0:
            return
        save_image(folder / "samples.png", samples)
        save_image(folder / "reconstructions.png", restored)
        print(
            f"samples: {folder / 'samples.png'}\nreconstructions (each under its original): {folder / 'reconstructions.png'}"
        )

    # --- pictures ---

    def _pipeline(self, *, autoencoder: Trained | None = None, prior: Trained | None = None) -> Pipeline:
        """A pipeline on this process's own devices; every process must make it, since parameters are gathered."""
        mesh = mesh_lib.MeshShape().build(jax.local_devices())

        def here(half: Trained | None) -> Trained | None:
            return half and dataclasses.replace(half, params=mesh_lib.gather(half.params, mesh))

        return Pipeline(config=self.config, autoencoder=here(autoencoder), prior=here(prior), mesh=mesh)

    def _images(self, source: Source, num: int) -> np.ndarray:
        """The first images of a source, uint8."""
        options = config_lib.build_data(self.config)
        batch = next(iter(eval_batches(source, options, batch_size=num, limit=num)))
        return batch["image"][batch["mask"]]

    def _compare(self, pipeline: Pipeline, images: np.ndarray) -> np.ndarray:
        """A picture of images, each with its reconstruction below."""
        columns = min(8, len(images))
        images = images[: len(images) // columns * columns]
        both = np.stack([images, to_uint8(pipeline.reconstruct(images))])
        both = both.reshape(2, -1, columns, *images.shape[1:]).swapaxes(0, 1)
        return image_grid(both.reshape(-1, *images.shape[1:]), columns)

    def _sample_grid(self, pipeline: Pipeline, source: CodeSource) -> np.ndarray:
        """A picture of samples; a column a class where there are classes, conditions of the source where there are some."""
        metadata = pipeline.prior.metadata
        labels, columns = None, 8
        if metadata["condition_shape"]:
            labels = np.stack([source[i]["condition"] for i in range(min(PREVIEWS, len(source)))])
        elif metadata["num_classes"]:
            columns = min(metadata["num_classes"], 10)
            labels = np.arange(columns)
        num = columns * (PREVIEWS // columns)
        return image_grid(pipeline.sample(seed=self.config.seed, num=num, labels=labels), columns)


def _trained(net, params, step: int = 0, metadata: dict[str, Any] | None = None) -> Trained:
    return Trained(net=net, params=params, step=step, metadata=metadata or {})


def _packed(pipeline: Pipeline, batch: dict[str, np.ndarray], spec: CodeSpec) -> dict[str, np.ndarray]:
    """The columns of a record for the examples of a batch that count."""
    mask = batch["mask"]

    def codes(images):
        return np.packbits(pipeline.encode(images).reshape(len(images), -1), axis=-1)

    columns = {"code": codes(batch["image"])[mask]} | code_columns(batch, spec)
    if spec.flips:
        columns["flipped"] = codes(batch["image"][:, :, ::-1])[mask]
    return columns


def _start_from(state: TrainState, workdir: epath.PathLike, stage: str) -> TrainState:
    """A fresh state with the EMA parameters of another work directory; what does not fit is said, not skipped."""
    parts = load_parts(epath.Path(workdir) / stage / "checkpoints", ("ema", "extra"))[1]
    params, extra = parts["ema"], parts["extra"]
    fresh = {name: x for name, x in state.params.items() if name not in params}
    taken = {name: params[name] for name in state.params if name in params}
    for name, tree in taken.items():
        old = {mesh_lib.path_name(p): x.shape for p, x in jax.tree_util.tree_leaves_with_path(tree)}
        new = {mesh_lib.path_name(p): x.shape for p, x in jax.tree_util.tree_leaves_with_path(state.params[name])}
        wrong = [
            f"{k}: {old.get(k, 'absent')} there, {new.get(k, 'absent')} here"
            for k in old | new
            if old.get(k) != new.get(k)
        ]
        if wrong and name == "discriminator":  # of use for training alone, so another one may take its place
            fresh[name] = state.params[name]
        elif wrong:
            raise UserError(f"{workdir} does not fit this {stage}'s {name}:\n  " + "\n  ".join(wrong[:10]))
    if fresh:
        print(f"{stage}: {', '.join(fresh)} starts afresh, {workdir} has none that fits")
    merged = jax.tree.map(lambda old, new: np.asarray(new, old.dtype), state.params, taken | fresh)
    fits = "discriminator" not in fresh and jax.tree.map(np.shape, extra) == jax.tree.map(np.shape, state.extra)
    extra = jax.tree.map(np.asarray, extra) if fits else state.extra  # the discriminator's running statistics
    return dataclasses.replace(state, params=merged, ema=merged, extra=extra)


def _bar(name: str, total: int, unit: str):
    import tqdm

    return tqdm.tqdm(
        total=total, desc=name, unit=unit, dynamic_ncols=True, disable=jax.process_index() != 0 or not total
    )
