"""`binlatent edit`: your own images, in part regenerated."""

import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from binlatent.cli import flags
from binlatent.cli.labels import choose_labels
from binlatent.cli.prompts import Prompts
from binlatent.cli.sample import Images, image_shape
from binlatent.console import progress, say, warn
from binlatent.errors import UserError
from binlatent.sampling.options import SamplingOptions

if TYPE_CHECKING:
    import numpy as np

    from binlatent.cli.sink import ImageSink
    from binlatent.pipeline import Pipeline

# (an image (1, h, w, c), copies of it (num, h, w, c)) → (its known part, the results)
Apply = Callable[["np.ndarray", "np.ndarray"], tuple["np.ndarray", "np.ndarray"]]
UNKNOWN = 0.5  # grey, where nothing is known
# flags that only some kinds of editing use
USED_BY = {
    "mask": ("inpaint",), "box": ("inpaint",), "margins": ("outpaint",), "start": ("vary",),
    **dict.fromkeys(("passes", "feather", "clamp"), ("inpaint", "outpaint")),
    **dict.fromkeys(("label", "words"), ("inpaint", "outpaint", "vary")),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit(flags.Command):
    """Inpaint, outpaint, vary or interpolate your own images.

    Attributes:
      how: inpaint regenerates a part, outpaint extends the image beyond its edges, vary resamples from a noised code,
        interpolate goes from each image to the next.
      workdir: the run's folder.
      images: a folder of images, or one image file.
      out: .png, .jpg or .webp (one picture, a row for each image: its known part, then the results), .npz (uint8
        arrays in that order), otherwise a new or empty folder of PNG files.
      num: results for each image.
      mask: an image file, bright where inpaint regenerates pixels.
      box: the region to regenerate if no mask is given, in fractions of the image's height and width.
      margins: pixels that outpaint adds on each side.
      passes: repetitions of each step of inpaint and outpaint; more are slower, and may fit the known pixels better.
      feather: pixels around the mask that are blended (default: a quarter of a token).
      clamp: how the known bits are fixed; noised as the step's noise level has them, code as they are.
      start: time from which a variation starts; 0 gives the reconstruction, 1 forgets the image.
      label: class of the results, by number or name (default: no class).
      seed: of the noise.
      batch_size: images at a time, or windows of a larger canvas; does not change the result.
    """

    how: Literal["inpaint", "outpaint", "vary", "interpolate"] = flags.flag(positional=True)
    workdir: str = flags.flag(metavar="DIR")
    images: str = flags.flag(metavar="DIR")
    out: str = flags.flag()
    num: int = 4
    mask: str | None = flags.flag(None, metavar="FILE")
    box: str = flags.flag("0.25,0.25,0.75,0.75", metavar="TOP,LEFT,BOTTOM,RIGHT")
    margins: str | None = flags.flag(None, metavar="TOP,LEFT,BOTTOM,RIGHT")
    passes: int = 1
    feather: float | None = None
    clamp: Literal["noised", "code"] = "noised"
    start: float = 0.5
    label: str | None = None
    words: Prompts = flags.nested(Prompts)
    seed: int = 0
    batch_size: int = 64
    sampling: dict[str, Any] = flags.changes(SamplingOptions)

    def run(self) -> None:
        from binlatent.cli.sink import ImageSink
        from binlatent.pipeline import Pipeline

        self._check_flags()
        sink = ImageSink(self.out)
        model = Pipeline.load(self.workdir, batch_size=self.batch_size)
        shape, images = image_shape(model), Images(self.images, model)
        if self.how == "interpolate":
            self._interpolate(model, images, shape, sink)
        else:
            self._resample(model, images, shape, sink)
        say(f"{self.how}: {sink.path}")

    def _check_flags(self) -> None:
        for field in dataclasses.fields(self):
            used_by, value = USED_BY.get(field.name, (self.how,)), getattr(self, field.name)
            if self.how in used_by or value == field.default:
                continue
            if field.name != "words":
                raise UserError(f"--{field.name} is for {' and '.join(used_by)}: {self.how} does not use it")
            if value.arguments():
                raise UserError(f"{self.how} takes no prompts")
        if self.mask is not None and self.box != type(self).box:
            raise UserError("--mask and --box are given: give one of them")

    def _resample(self, model: "Pipeline", images: Images, shape: tuple[int, int, int], sink: "ImageSink") -> None:
        """For each image its known part, and `num` results."""
        import numpy as np

        options = model.options(**self.sampling)
        given = self.words.arguments()
        label = "none" if self.label is None else self.label
        chosen = choose_labels(label, model, options.guidance, given=bool(given), flag="label")
        if (count := max(len(given.get("prompts", ())), len(chosen or ()))) > self.num:
            raise UserError(
                f"{count} prompts or labels are given for --num {self.num} results of each image: give --num {count}"
            )
        if given.get("negative_prompts") and not options.guidance:
            warn("the negative prompts have no effect: guidance is 0")
        call: dict[str, Any] = {
            "seed": self.seed,
            "condition": model.conditions(labels=chosen, **given),
        } | self.sampling
        make = {"inpaint": self._inpaint, "outpaint": self._outpaint, "vary": self._vary}[self.how]
        apply, grown = make(model, shape, call)
        sink.expect(len(images) * (self.num + 1), grown, columns=self.num + 1)
        with sink, progress(len(images), self.how) as bar:
            say(f"{self.how}: {len(images)} images, {self.num} results each, {options.steps} steps")
            for (index,), original in images.batches(1):
                known, made = apply(original, np.repeat(original, self.num, axis=0))
                stem = images.stems[index]
                names = [f"{stem}-known", *(f"{stem}-{i + 1}" for i in range(self.num))]
                sink.add(np.concatenate([known, made]), names=names)
                bar.update()

    def _vary(self, model: "Pipeline", shape: tuple[int, int, int], call: dict[str, Any]):
        if not 0 <= self.start <= 1:
            raise UserError(f"--start {self.start}: a time from 0 to 1 is expected")

        def apply(original, copies):
            codes = model.edit(model.encode(copies), start=self.start, **call)
            return model.reconstruct(original), model.decode(codes)

        return apply, shape

    def _completing(self) -> dict[str, Any]:
        return {"passes": self.passes, "feather": self.feather, "clamp": self.clamp}

    def _inpaint(self, model: "Pipeline", shape: tuple[int, int, int], call: dict[str, Any]):
        import numpy as np

        from binlatent.editing.complete import inpaint
        from binlatent.editing.known import box, check_mask
        from binlatent.images import to_float

        try:
            mask = box(self.box, shape[:2]) if self.mask is None else read_mask(self.mask, shape[0])
        except OSError as error:
            raise UserError(f"--mask {self.mask}: {error.strerror or error}") from error
        except ValueError as error:
            raise UserError(f"--{'box' if self.mask is None else 'mask'}: {error}") from error
        check_mask(mask, np.empty((1, *shape)))  # an error before the first image

        def apply(original, copies):
            known = np.where(mask[..., None], UNKNOWN, to_float(original))
            return known, inpaint(model, copies, mask, **self._completing(), **call).images

        return apply, shape

    def _outpaint(self, model: "Pipeline", shape: tuple[int, int, int], call: dict[str, Any]):
        import numpy as np

        from binlatent.editing.complete import outpaint
        from binlatent.images import to_float

        if self.margins is None:
            raise UserError("outpaint needs --margins: four comma-separated numbers of pixels, top,left,bottom,right")
        try:
            top, left, bottom, right = (int(part) for part in self.margins.split(","))
            if min(top, left, bottom, right) < 0:
                raise ValueError
        except ValueError:
            raise UserError(
                f"--margins {self.margins}: four comma-separated numbers of pixels are expected, "
                "top,left,bottom,right, none negative"
            ) from None

        def apply(original, copies):
            pads = ((0, 0), (top, bottom), (left, right), (0, 0))
            made = outpaint(model, copies, (top, left, bottom, right), **self._completing(), **call).images
            return np.pad(to_float(original), pads, constant_values=UNKNOWN), made

        return apply, (shape[0] + top + bottom, shape[1] + left + right, shape[2])

    def _interpolate(self, model: "Pipeline", images: "Images", shape: tuple[int, int, int], sink: "ImageSink") -> None:
        """`num` images from each image to the next; the first and last of a row are reconstructions."""
        if len(images) < 2:
            raise UserError(f"{self.images} holds one image: an interpolation needs at least two")
        if self.num < 2:
            raise UserError(f"--num {self.num}: an interpolation needs at least 2 images, its two ends")
        sink.expect((len(images) - 1) * self.num, shape, columns=self.num)
        previous = None
        with sink, progress(len(images), self.how) as bar:
            for (index,), original in images.batches(1):
                code, stem = model.encode(original)[0], images.stems[index]
                if previous is not None:
                    between = model.interpolate(previous[0], code, self.num, seed=self.seed)
                    names = [f"{previous[1]}-to-{os.path.basename(stem)}-{i + 1}" for i in range(self.num)]
                    sink.add(model.decode(between), names=names)
                previous = code, stem
                bar.update()


def read_mask(path: str, resolution: int) -> "np.ndarray":
    """The mask (resolution, resolution) of an image file, True where it is bright; cut to a square as images are.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is no image.
    """
    from binlatent.data.decode import decode_image
    from binlatent.data.transforms import cut_square, to_channels
    from binlatent.files import user_path

    image = to_channels(decode_image(user_path(path).read_bytes(), resolution), 1)
    return cut_square(image, resolution, 0.5)[..., 0] > 127
