"""A trained model as a person uses it: encode, decode, sample, edit, score."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from binlatent import config as config_lib
from binlatent import mesh as mesh_lib
from binlatent import prng
from binlatent.console import warn
from binlatent.diffusion.objective import Objective
from binlatent.errors import UserError
from binlatent.mesh import Rows
from binlatent.sampling import editing, programs
from binlatent.sampling.conditions import Conditions, conditioning, conditions, encode_prompts, encoder_of
from binlatent.sampling.inputs import check_codes, check_count, check_images, check_known, check_student, check_times
from binlatent.sampling.options import SamplingOptions
from binlatent.sampling.programs import Samples
from binlatent.stored.halves import open_halves
from binlatent.text.encoder import TextEncoder
from binlatent.train.state import Trained
from binlatent.typing import Array


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Pipeline:
    """A model over a work directory; either half may be missing, and is then named by whatever needs it.

    Arrays go in and come out as NumPy. Work is done in batches of `batch_size`, spread over this process's devices; the
    result does not depend on either. The device works on a batch while the host fetches the one before. Of a canvas larger
    than the model's images, `batch_size` is also the number of windows that the networks get at a time.
    """

    config: ConfigDict
    autoencoder: Trained | None
    prior: Trained | None
    mesh: Mesh
    batch_size: int = 64

    @classmethod
    def load(cls, path: epath.PathLike, *, batch_size: int = 64, student: bool = False) -> "Pipeline":
        """Opens a work directory with the latest checkpoints that restore, or a file made by `binlatent pack`.

        Args:
          path: local, `gs://…`, or of a file also `hf://OWNER/NAME[@REVISION]/FILE`.
          student: with the prior's student in place of the prior.

        Raises:
          UserError: see `stored.halves.open_halves`.
        """
        check_count("batch_size", batch_size)
        mesh = mesh_lib.MeshShape().build(jax.local_devices())
        found = open_halves(path, mesh_lib.replicated(mesh), student=student)
        halves = {"config": found.config, "autoencoder": found.autoencoder, "prior": found.prior}
        return cls(**halves, mesh=mesh, batch_size=batch_size)

    def __repr__(self) -> str:
        y, x, k = self.code_shape
        classes = f", {self.num_classes} classes" if self.prior and self.num_classes else ""
        classes += ", texts" if self.prior and conditioning(self.prior.metadata).texts else ""
        halves = (f"{name}: {getattr(self, name) or 'none'}" for name in ("autoencoder", "prior"))
        return f"Pipeline({y}×{x}×{k} bits{classes}; {'; '.join(halves)})"

    @property
    def num_classes(self) -> int:
        """Classes that the prior is conditioned on; 0 for none."""
        return self._prior().metadata["num_classes"]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of the labels; empty where there are none."""
        return tuple(self._prior().metadata.get("class_names") or ())

    @functools.cached_property
    def sampling(self) -> SamplingOptions:
        """The work directory's sampling defaults, changed to what a student has learned."""
        options = config_lib.build_sampling(self.config)
        return options.for_student(**self.student) if self.student else options

    @property
    def student(self) -> dict[str, Any] | None:
        """Of a student its number of `steps` and its largest `guidance`; None for the prior itself."""
        return self.prior and self.prior.metadata.get("student")

    @functools.cached_property
    def objective(self) -> Objective:
        """What the prior was trained with: its noise schedule, and how its output is read."""
        return config_lib.build_objective(self.config)

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

    def _concatenate(self, program: Callable[..., Array], num: int, *rows: Rows | None, axis: int = 0) -> np.ndarray:
        found = mesh_lib.run_batches(program, num, rows, mesh=self.mesh, batch_size=self.batch_size)
        parts = [np.take(part, range(n), axis) for n, part in found]
        return np.concatenate(parts, axis)

    def _keys(self, stream: str, seed: int, start: int = 0) -> Rows:
        """A key for each example, a function of the seed and the example's place; made a batch at a time."""
        key = prng.stream(prng.root(seed), stream)
        return lambda index: prng.per_example(key, len(index), jnp.uint32(start + int(index[0])))

    def encode(self, images: np.ndarray, key=None, start: int = 0) -> np.ndarray:
        """Codes, bool (b, y, x, k), of images (b, h, w, c), uint8 or float in [0, 1].

        Thresholded at one half, unless a key is given: then drawn from the code's distribution, for image i as a function of
        (key, start + i). Images larger than the
        model's, with sides that are multiples of a token's, are encoded by overlapping windows (`sampling.windows`).

        Raises:
          UserError: the images are of another size, or there are none.
        """
        trained = self._autoencoder()
        net = trained.net
        images = check_images(images, (net.resolution, net.resolution, net.image_channels), net.downsampling)
        keys = None if key is None else lambda index: prng.per_example(key, len(index), start + int(index[0]))
        program = functools.partial(programs.encode, trained.params, net=net, windows=self.batch_size)
        return self._concatenate(program, len(images), images.__getitem__, keys)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Images, float (b, h, w, c) in [0, 1], of codes (b, y, x, k), also of more tokens than the model's.

        Raises:
          UserError: the codes are of another shape, or there are none.
        """
        trained = self._autoencoder()
        codes = check_codes(codes, self.code_shape, canvas=True)
        program = functools.partial(programs.decode, trained.params, net=trained.net, windows=self.batch_size)
        return self._concatenate(program, len(codes), codes.__getitem__)

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Images through the code and back, float (b, h, w, c) in [0, 1]."""
        return self.decode(self.encode(images))

    @functools.cached_property
    def text_encoder(self) -> TextEncoder:
        """What turns prompts into the conditions of this model's prior.

        Raises:
          UserError: the prior was trained without texts, or the encoder that it was trained with is not here.
        """
        return encoder_of(self._prior().metadata, config_lib.build_text(self.config))

    def conditions(self, *, labels=None, prompts=None, condition=None, negative_prompts=None) -> Conditions | None:
        """Conditions for `sample` and its kin, as `condition`, where they are used more than once; None for the null.

        Args:
          labels: classes by number or name; "none" for no condition.
          prompts: sentences.
          condition: embeddings in place of prompts: (n, d), (n, tokens, d), or a mapping of the names of `Condition`; or
            what this method gave.
          negative_prompts: what guidance leads away from.

        Raises:
          UserError: there is no such class, or the model does not take such conditions.
        """
        if isinstance(condition, Conditions):
            return condition
        if prompts is not None and condition is not None:
            raise UserError("prompts and a condition are given: give one of them")
        metadata = self._prior().metadata
        texts, negative = (
            None if given is None else encode_prompts(self.text_encoder, given) for given in (prompts, negative_prompts)
        )
        return conditions(metadata, labels=labels, embeddings=condition, texts=texts, negative=negative)

    def options(self, **changes) -> SamplingOptions:
        """The sampling defaults with changes; None keeps a default.

        Raises:
          UserError: an unknown option or a value of another type or out of range.
        """
        return config_lib.changed_sampling(self.sampling, **{k: v for k, v in changes.items() if v is not None})

    def sample(self, seed: int = 0, num: int = 16, labels=None, prompts=None, **options) -> np.ndarray:
        """New images, float (num, h, w, c) in [0, 1].

        Image i is a function of (seed, i), its condition and the options, regardless of `num` and the batch size.

        Args:
          seed: an integer from 0 to 2³² − 1.
          num: how many.
          labels: a class or several, by number or name, cycled over the images. None: every class in turn where the model
            has classes and no prompts are given. "none": the null condition.
          prompts: sentences, cycled over the images.
          **options: `condition`: embeddings in place of prompts; `negative_prompts`: what guidance leads away from; and
            those of `SamplingOptions`: steps, guidance, temperature, posterior, last_step, …

        Raises:
          UserError: a half is missing, there is no such class, an option is unknown or out of range.
        """
        self._autoencoder()
        parts = self.sample_batches(seed=seed, num=num, labels=labels, prompts=prompts, **options)
        return np.concatenate([part.images for part in parts])

    def sample_batches(
        self, *, seed: int = 0, num: int = 16, labels=None, prompts=None, condition=None, negative_prompts=None,
        start: int = 0, trajectory=False, image_dtype="float32", **options,
    ) -> Iterator[Samples]:  # fmt: skip
        """The same a batch at a time, with codes, from image `start` on: for more images than fit in memory;
        as uint8 where `image_dtype` says so, a quarter of the bytes to fetch."""
        check_count("num", num)
        check_count("start", start, least=0)
        check_count("start + num", start + num)
        if labels is None and prompts is None and condition is None and self.num_classes:
            labels = np.arange(self.num_classes)
        given = self.conditions(labels=labels, prompts=prompts, condition=condition, negative_prompts=negative_prompts)
        keys, options = self._keys("sample", seed, start), self.options(**options)
        if given is None and labels is None and options.guidance and conditioning(self._prior().metadata):
            warn(f"guidance {options.guidance:g} has no effect: no condition is given")
        if given is not None and given.negative is not None and not options.guidance:
            warn("the negative prompts have no effect: guidance is 0")
        return self._generate(
            num, keys, given, None, None, first=start, options=options, trajectory=trajectory, image_dtype=image_dtype
        )

    def _generate(
        self, num: int, keys: Rows, given: Conditions | None, codes: Rows | None, known: Rows | None, *,
        options: SamplingOptions, first: int = 0, start: float = 1.0, clamp: str = "noised", trajectory: bool = False,
        image_dtype: str = "float32", passes: int = 1,
    ) -> Iterator[Samples]:  # fmt: skip
        prior, autoencoder = self._prior(), self.autoencoder
        if self.student:
            check_student(self.student, options, given, conditional=bool(conditioning(prior.metadata)), start=start)
        try:
            guidance = options.when() if options.guidance and given is not None else None
            sampler = options.sampler(self.objective.schedule)
        except ValueError as error:
            raise UserError(f"sampling options: {error}") from error

        def program(keys, condition, code, known, negative):
            return programs.generate(
                prior.params, autoencoder and autoencoder.params, keys, condition,
                jnp.float32(options.guidance), jnp.float32(options.temperature), code, known, negative,
                net=prior.net, objective=self.objective, autoencoder=autoencoder and autoencoder.net, sampler=sampler,
                guidance=guidance, clamp=clamp, start=start, trajectory=trajectory, image_dtype=image_dtype,
                passes=passes, windows=self.batch_size,
            )  # fmt: skip

        rows = given and (lambda index: given.rows(first + index))
        negative = given and given.negative and (lambda index: given.negative_rows(first + index))
        arguments = keys, rows, codes, known, negative
        for count, (images, final, states) in mesh_lib.run_batches(
            program, num, arguments, mesh=self.mesh, batch_size=self.batch_size
        ):
            yield Samples(
                images=None if images is None else images[:count],
                codes=final[:count],
                states=None if states is None else states[:, :count],
            )

    def edit(
        self, codes: np.ndarray, *, known: np.ndarray | None = None, start: float = 1.0, clamp: str = "noised",
        passes: int = 1, seed: int = 0, labels=None, prompts=None, condition=None, negative_prompts=None, **options,
    ) -> np.ndarray:  # fmt: skip
        """Codes sampled again in part, bool (b, y, x, k).

        Args:
          codes: what to edit; of more tokens than the model's they are sampled by overlapping windows.
          known: bits to keep, bool, of the codes' shape (inpainting); None keeps none.
          start: how far back to noise the codes first: 1 forgets all but the known bits, less gives a variation, and 0
            returns the codes.
          passes: of each step, see `Sampler`; more make sampled bits agree better with known ones.
          clamp: `noised` or `code`, see `sampling.editing.hold`.
          labels, prompts, condition, negative_prompts: as in `sample`, but without them it is the null condition: nobody
            has said what the codes show.

        Raises:
          UserError: as `sample`; also shapes that do not fit and a start outside [0, 1].
        """
        codes = check_codes(codes, self.code_shape, canvas=True)
        known = check_known(known, codes)
        check_count("passes", passes, most=1000)
        if not 0 <= start <= 1:
            raise UserError(f"start is {start}: a time in [0, 1] is expected")
        if clamp not in editing.CLAMPS:
            raise UserError(f"clamp is {clamp!r}: {' or '.join(editing.CLAMPS)} is expected")
        if start == 0:
            return codes
        given = self.conditions(labels=labels, prompts=prompts, condition=condition, negative_prompts=negative_prompts)
        parts = self._generate(
            len(codes), self._keys("edit", seed), given, codes.__getitem__, None if known is None else known.__getitem__,
            options=self.options(**options), start=start, clamp=clamp, passes=passes,
        )  # fmt: skip
        return np.concatenate([part.codes for part in parts])

    def interpolate(self, first: np.ndarray, second: np.ndarray, num: int, *, seed: int = 0) -> np.ndarray:
        """`num` codes (num, y, x, k) from one code (y, x, k) to another; `edit` with a small `start` smooths them."""
        first, second = (check_codes(np.asarray(code)[None], self.code_shape)[0] for code in (first, second))
        check_count("num", num)
        uniform = jax.random.uniform(prng.stream(prng.root(seed), "edit", 1), first.shape)
        try:
            return np.asarray(editing.interpolate(uniform, jnp.asarray(first), jnp.asarray(second), num))
        except ValueError as error:
            raise UserError(str(error)) from error

    def denoise(self, codes: np.ndarray, t, label=None, condition=None) -> np.ndarray:
        """Flip log-odds, float (b, y, x, k), of codes at times t in [0, 1] (one, or one a code). Without label and
        `condition` (see `conditions`): the null condition, which a student has not learned."""
        prior = self._prior()
        codes = check_codes(codes, self.code_shape)
        times, given = check_times(t, len(codes)), self.conditions(labels=label, condition=condition)
        program = functools.partial(programs.denoise, prior.params, net=prior.net, objective=self.objective)
        return self._concatenate(program, len(codes), codes.__getitem__, times.__getitem__, given and given.rows)

    def bits_per_bit(self, codes: np.ndarray, seed: int = 0, *, steps: int = 256, **given) -> np.ndarray:
        """Negative ELBO of each code in bits, per latent bit, (b,): 1 is a fair coin, lower is better.

        Args:
          steps: T of the bound.
          **given: labels, prompts or condition, as in `edit`.
        """
        return self.elbo_terms(codes, seed, steps=steps, **given).sum(0) / np.prod(self.code_shape)

    def elbo_terms(self, codes: np.ndarray, seed: int = 0, *, steps: int = 256, **given) -> np.ndarray:
        """The bound's terms in bits, (steps, b), see `diffusion.elbo`."""
        prior = self._prior()
        if self.student:
            raise UserError("a student has no likelihood: load the model without `student`")
        check_count("steps", steps)
        codes = check_codes(codes, self.code_shape)
        keys, given = self._keys("likelihood", seed), self.conditions(**given)

        def program(code, keys, condition):
            return programs.negative_elbo(
                prior.params, code, keys, condition, net=prior.net, objective=self.objective, steps=steps
            )

        return self._concatenate(program, len(codes), codes.__getitem__, keys, given and given.rows, axis=1)
