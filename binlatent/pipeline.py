"""A trained model as a person uses it: encode, decode, sample, edit, score."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from binlatent import config as config_lib
from binlatent import mesh as mesh_lib
from binlatent import prng
from binlatent.checkpoint import checkpoint_steps, fingerprint, load_ema
from binlatent.errors import UserError
from binlatent.sampling import editing, programs
from binlatent.sampling.guidance import Guidance
from binlatent.sampling.options import SamplingOptions
from binlatent.sampling.sampler import Sampler
from binlatent.train.state import Trained
from binlatent.typing import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """What sampling gives: `images` float (n, h, w, c) in [0, 1], None without an autoencoder; `codes` bool
    (n, y, x, k); with a trajectory `states` bool (steps + 1, n, y, x, k), from noise to the code."""

    images: np.ndarray | None
    codes: np.ndarray
    states: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A model over a work directory; either half may be missing, and is then named by whatever needs it.

    Arrays go in and come out as NumPy. Work is done in batches of `batch_size`, spread over this process's devices; the
    result does not depend on either.
    """

    config: ConfigDict
    autoencoder: Trained | None
    prior: Trained | None
    mesh: Mesh
    batch_size: int = 64

    @classmethod
    def load(cls, workdir: epath.PathLike, *, batch_size: int = 64) -> "Pipeline":
        """Opens a work directory with the latest checkpoints that are whole.

        Raises:
          UserError: it is no work directory, holds no trained stage, or holds halves that do not belong together.
        """
        workdir = epath.Path(workdir)
        if not (workdir / "config.json").exists():
            raise UserError(f"{workdir} is no work directory: it has no config.json. `binlatent run` makes one.")
        config = config_lib.read(workdir / "config.json")
        mesh = mesh_lib.MeshShape().build(jax.local_devices())
        same = mesh_lib.replicated(mesh)

        def half(stage: str):
            folder = workdir / stage / "checkpoints"
            return load_ema(folder, same) if checkpoint_steps(folder) else None

        autoencoder = prior = None
        if loaded := half("autoencoder"):
            step, params, metadata = loaded
            net = config_lib.build_autoencoder(config)
            autoencoder = Trained(net=net, params=params["autoencoder"], step=step, metadata=metadata)
        if loaded := half("prior"):
            step, params, metadata = loaded
            net = config_lib.build_denoiser(
                config, tuple(metadata["code_shape"]), metadata["num_classes"], tuple(metadata["condition_shape"])
            )
            prior = Trained(net=net, params=params["denoiser"], step=step, metadata=metadata)
        if autoencoder is None and prior is None:
            raise UserError(f"{workdir} holds no trained stage yet: `binlatent run --workdir {workdir}` trains them")
        if autoencoder and prior and prior.metadata["autoencoder"] not in ("", fingerprint(autoencoder.params)):
            raise UserError(
                f"{workdir}: the prior was trained on codes of autoencoder {prior.metadata['autoencoder']}, but the "
                f"autoencoder here is {fingerprint(autoencoder.params)}. Encode and train the prior again."
            )
        return cls(config=config, autoencoder=autoencoder, prior=prior, mesh=mesh, batch_size=batch_size)

    # --- what there is ---

    @property
    def num_classes(self) -> int:
        """Classes that the prior is conditioned on; 0 for none."""
        return self._prior().metadata["num_classes"]

    @property
    def sampling(self) -> SamplingOptions:
        """The work directory's sampling defaults."""
        return config_lib.build_sampling(self.config)

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """(y, x, k)."""
        half = self.autoencoder or self.prior
        return tuple(half.net.code_shape)

    def _autoencoder(self) -> Trained:
        if self.autoencoder is None:
            raise UserError("this model has no autoencoder: train or convert one into its work directory")
        return self.autoencoder

    def _prior(self) -> Trained:
        if self.prior is None:
            raise UserError("this model has no prior: train or convert one into its work directory")
        return self.prior

    # --- batches over the devices ---

    def _batches(self, *arrays: np.ndarray | Array | None) -> Iterator[tuple[int, list[Array | None]]]:
        """Rows of arrays in padded batches of one shape, on the mesh: (how many rows count, the arrays)."""
        num = len(next(a for a in arrays if a is not None))
        devices = self.mesh.size
        size = min(self.batch_size, num)
        size = -(-size // devices) * devices
        where = mesh_lib.batch_sharding(self.mesh)
        for start in range(0, num, size):
            rows = jnp.minimum(jnp.arange(start, start + size), num - 1)
            yield min(size, num - start), [None if a is None else jax.device_put(a[rows], where) for a in arrays]

    def encode(self, images: np.ndarray, key=None) -> np.ndarray:
        """Codes, bool (b, y, x, k), of images (b, h, w, c), uint8 or float in [0, 1].

        Thresholded at one half, unless a key is given: then drawn from the code's distribution.

        Raises:
          UserError: the images are of another size.
        """
        trained = self._autoencoder()
        images = self._checked(images)
        keys = None if key is None else prng.per_example(key, len(images))
        parts = []
        for count, (batch, batch_keys) in self._batches(images, keys):
            parts.append(np.asarray(programs.encode(trained.params, batch, batch_keys, net=trained.net))[:count])
        return np.concatenate(parts)

    def _checked(self, images) -> np.ndarray:
        images, net = np.asarray(images), self._autoencoder().net
        expected = (net.resolution, net.resolution, net.image_channels)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise UserError(
                f"images of shape {images.shape} given; this model takes (b, {', '.join(map(str, expected))})"
            )
        if images.dtype != np.uint8 and not (
            np.issubdtype(images.dtype, np.floating) and np.all((images >= 0) & (images <= 1))
        ):
            raise UserError(f"images of type {images.dtype} given; uint8 or float in [0, 1] is expected, without NaN")
        return images

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Images, float (b, h, w, c) in [0, 1], of codes (b, y, x, k).

        Raises:
          UserError: the codes are of another shape.
        """
        trained = self._autoencoder()
        codes = self._checked_codes(codes)
        parts = (
            np.asarray(programs.decode(trained.params, batch, net=trained.net))[:count]
            for count, (batch,) in self._batches(codes)
        )
        return np.concatenate(list(parts))

    def _checked_codes(self, codes) -> np.ndarray:
        codes = np.asarray(codes)
        if codes.ndim != 4 or codes.shape[1:] != self.code_shape or codes.dtype != bool:
            raise UserError(
                f"codes of shape {codes.shape} and type {codes.dtype} given; bool (b, {', '.join(map(str, self.code_shape))}) "
                "is expected"
            )
        return codes

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Images through the code and back, float (b, h, w, c) in [0, 1]."""
        return self.decode(self.encode(images))

    def _condition(self, labels, num: int) -> np.ndarray | None:
        """Labels (cycled) or condition vectors for `num` examples."""
        if labels is None:
            return None
        metadata = self._prior().metadata
        labels = np.asarray(labels)
        if not len(labels):
            raise UserError("no labels given: name at least one, or none at all")
        if expected := tuple(metadata["condition_shape"]):
            found = labels.shape[1:]
            # 0: any number of text tokens, in an imported model
            if len(found) != len(expected) or any(n not in (m, 0) for m, n in zip(found, expected, strict=True)):
                raise UserError(f"conditions of shape {found} given, {expected} expected")
            return labels[np.arange(num) % len(labels)].astype(np.float32)
        if not metadata["num_classes"]:
            raise UserError("labels are given, but this model was trained without classes")
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= metadata["num_classes"]:
            raise UserError(
                f"labels {labels.tolist()[:10]}: whole numbers from 0 to {metadata['num_classes'] - 1} are expected"
            )
        return labels[np.arange(num) % len(labels)].astype(np.int32)

    def options(self, **changes) -> SamplingOptions:
        """The sampling defaults with changes; None keeps a default.

        Raises:
          UserError: an unknown option or a value out of range.
        """
        try:
            return dataclasses.replace(self.sampling, **{k: v for k, v in changes.items() if v is not None})
        except (TypeError, ValueError) as error:
            raise UserError(f"sampling options: {error}") from error

    def sample(self, seed: int = 0, num: int = 16, labels=None, **options) -> np.ndarray:
        """New images, float (num, h, w, c) in [0, 1].

        Image i is a function of (seed, i), its label and the options, whatever `num` and the batch size.

        Args:
          labels: classes, cycled over the images (or condition vectors); None samples without a condition.
          **options: of `SamplingOptions`: steps, guidance, temperature, posterior, last_step, …

        Raises:
          UserError: a half is missing, a label is out of range, an option is unknown or out of range.
        """
        self._autoencoder()
        parts = self.sample_batches(seed=seed, num=num, labels=labels, **options)
        return np.concatenate([part.images for part in parts])

    def sample_batches(
        self, *, seed: int = 0, num: int = 16, labels=None, start: int = 0, trajectory: bool = False, **options
    ) -> Iterator[Samples]:
        """The same a batch at a time, with codes, from image `start` on: for more images than fit in memory."""
        if num < 1:
            raise UserError(f"num is {num}: at least 1 image is expected")
        condition = self._condition(labels, start + num)
        condition = None if condition is None else condition[start:]
        keys = prng.per_example(prng.stream(prng.root(seed), "sample"), num, start)
        return self._generate(keys, condition, None, None, trajectory=trajectory, options=self.options(**options))

    def _generate(
        self, keys, condition, codes, known, *, options: SamplingOptions, start: float = 1.0, clamp: str = "noised",
        trajectory: bool = False,
    ) -> Iterator[Samples]:  # fmt: skip
        prior, autoencoder = self._prior(), self.autoencoder
        guided = options.guidance != 0 and condition is not None
        try:
            guidance: Guidance | None = options.when() if guided else None
            objective = config_lib.build_objective(self.config)
            sampler: Sampler = options.sampler(objective.schedule)
        except ValueError as error:
            raise UserError(f"sampling options: {error}") from error
        for count, (batch_keys, batch_condition, code, held) in self._batches(keys, condition, codes, known):
            images, final, states = programs.generate(
                prior.params, autoencoder and autoencoder.params, batch_keys, batch_condition,
                jnp.float32(options.guidance), jnp.float32(options.temperature), code, held,
                net=prior.net, objective=objective, autoencoder=autoencoder and autoencoder.net, sampler=sampler,
                guidance=guidance, clamp=clamp, start=start, trajectory=trajectory,
            )  # fmt: skip
            yield Samples(
                images=None if images is None else np.asarray(images)[:count],
                codes=np.asarray(final)[:count],
                states=None if states is None else np.asarray(states)[:, :count],
            )

    def edit(
        self,
        codes: np.ndarray,
        *,
        known: np.ndarray | None = None,
        start: float = 1.0,
        clamp: str = "noised",
        seed: int = 0,
        labels=None,
        **options,
    ) -> np.ndarray:
        """Codes sampled again in part, bool (b, y, x, k).

        Args:
          codes: what to edit.
          known: bits to keep, bool, of the codes' shape (inpainting); None keeps none.
          start: how far back to noise the codes first: 1 forgets all but the known bits, less gives a variation.
          clamp: `noised` or `code`, see `sampling.editing.hold`.

        Raises:
          UserError: as `sample`; also shapes that do not fit and a start outside (0, 1].
        """
        codes = self._checked_codes(codes)
        if known is not None and (known.shape != codes.shape or known.dtype != bool):
            raise UserError(f"known is {known.dtype} {known.shape}; bool {codes.shape} is expected, as the codes")
        if not 0 < start <= 1:
            raise UserError(f"start is {start}: a time in (0, 1] is expected")
        keys = prng.per_example(prng.stream(prng.root(seed), "edit"), len(codes))
        condition = self._condition(labels, len(codes))
        parts = self._generate(keys, condition, codes, known, options=self.options(**options), start=start, clamp=clamp)
        return np.concatenate([part.codes for part in parts])

    def interpolate(self, first: np.ndarray, second: np.ndarray, num: int, *, seed: int = 0) -> np.ndarray:
        """`num` codes (num, y, x, k) from one code (y, x, k) to another; `edit` with a small `start` smooths them."""
        uniform = jax.random.uniform(prng.stream(prng.root(seed), "edit", 1), first.shape)
        try:
            return np.asarray(editing.interpolate(uniform, jnp.asarray(first), jnp.asarray(second), num))
        except ValueError as error:
            raise UserError(str(error)) from error

    # --- the model's numbers ---

    def denoise(self, codes: np.ndarray, t, label=None) -> np.ndarray:
        """Flip log-odds, float (b, y, x, k), of codes at times t in [0, 1] (one, or one a code)."""
        prior = self._prior()
        codes = self._checked_codes(codes)
        times = np.broadcast_to(np.asarray(t, np.float32), (len(codes),))
        if not np.all((times >= 0) & (times <= 1)):
            raise UserError(f"t is {t}: times in [0, 1] are expected")
        label = None if label is None else np.atleast_1d(label)
        objective = config_lib.build_objective(self.config)
        parts = [
            np.asarray(programs.denoise(prior.params, code, at, condition, net=prior.net, objective=objective))[:count]
            for count, (code, at, condition) in self._batches(codes, times, self._condition(label, len(codes)))
        ]
        return np.concatenate(parts)

    def bits_per_bit(self, codes: np.ndarray, seed: int = 0, *, labels=None, steps: int = 256) -> np.ndarray:
        """Negative ELBO of each code in bits, per latent bit, (b,): 1 is a fair coin, lower is better."""
        return self.elbo_terms(codes, seed, labels=labels, steps=steps).sum(0) / np.prod(self.code_shape)

    def elbo_terms(self, codes: np.ndarray, seed: int = 0, *, labels=None, steps: int = 256) -> np.ndarray:
        """The bound's terms in bits, (steps, b), see `diffusion.elbo`."""
        prior = self._prior()
        if steps < 1:
            raise UserError(f"steps is {steps}: at least 1 is expected")
        codes = self._checked_codes(codes)
        keys = prng.per_example(prng.stream(prng.root(seed), "likelihood"), len(codes))
        objective = config_lib.build_objective(self.config)
        parts = [
            np.asarray(
                programs.negative_elbo(
                    prior.params, code, batch_keys, condition, net=prior.net, objective=objective, steps=steps
                )
            )[:, :count]
            for count, (code, batch_keys, condition) in self._batches(codes, keys, self._condition(labels, len(codes)))
        ]
        return np.concatenate(parts, axis=1)
