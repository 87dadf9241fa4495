"""`binlatent sample` and `reconstruct`: images out of a trained model."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from binlatent.cli import flags
from binlatent.cli.labels import choose_labels
from binlatent.cli.prompts import Prompts, file_name
from binlatent.console import progress, say
from binlatent.errors import UserError
from binlatent.sampling.options import SamplingOptions

if TYPE_CHECKING:
    import numpy as np

    from binlatent.data.sources.folder import FolderSource
    from binlatent.pipeline import Pipeline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(flags.Command):
    """Make new images.

    Attributes:
      workdir: the run's folder.
      num: how many images (default: 64; with several prompts, the largest multiple of their number up to 64, but one for each
        at least).
      out: .npz (images uint8, labels), .png, .jpg or .webp (one picture), otherwise a new or empty folder of PNG files
        (default: samples/seed<seed>.png in the work directory, seed<seed>.png here for a pack).
      labels: comma-separated class numbers or names, in turn over the images; none samples without a
        class (default: all classes in turn).
      seed: image i is a function of the seed, i, its label and the sampling options.
      batch_size: images at a time; does not change them.
      student: sample from the prior's student, in as many steps as it was made for.
    """

    workdir: str = flags.flag(metavar="DIR")
    num: int | None = None
    out: str | None = None
    labels: str | None = flags.flag(None, metavar="0,3,cat")
    words: Prompts = flags.nested(Prompts)
    seed: int = 0
    batch_size: int = 64
    student: bool = False
    sampling: dict[str, Any] = flags.changes(SamplingOptions)

    def run(self) -> None:
        import numpy as np

        from binlatent.cli.sink import ImageSink
        from binlatent.images import grid_columns
        from binlatent.pipeline import Pipeline
        from binlatent.stored.pack import is_pack

        given = self.words.arguments()
        prompts = given.get("prompts", [])
        num = self.num or len(prompts or [0]) * max(1, 64 // len(prompts or [0]))
        folder = "" if is_pack(self.workdir) else os.path.join(self.workdir, "samples")
        sink = ImageSink(self.out or os.path.join(folder, f"seed{self.seed}.png"))
        model = Pipeline.load(self.workdir, batch_size=self.batch_size, student=self.student)
        options = model.options(**self.sampling)
        labels = choose_labels(self.labels, model, options.guidance, given=bool(given))
        asked, group = ("none", len(prompts) or 1) if labels is None else (labels, len(labels))
        sink.expect(num, image_shape(model), columns=grid_columns(num, group))
        call = {"seed": self.seed, "num": num, "labels": asked, "image_dtype": "uint8"} | given | self.sampling
        batches, done = model.sample_batches(**call), 0
        with sink, progress(num, "sample") as bar:
            say(f"sampling {num} images in {options.steps} steps")
            for part in batches:
                count = len(part.images)
                names = (
                    [file_name(i, prompts[i % len(prompts)]) for i in range(done, done + count)] if prompts else None
                )
                sink.add(part.images, None if labels is None else np.resize(labels, done + count)[done:], names)
                done += count
                bar.update(count)
        say(f"{done} images: {sink.path}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruct(flags.Command):
    """Encode and decode your own images; prints their PSNR and writes it for each file.

    Attributes:
      workdir: the run's folder.
      images: a folder of images, or one image file.
      out: .png, .jpg or .webp (one picture, each image beside its reconstruction), .npz (uint8 arrays), otherwise a new
        or empty folder of PNG files with the images' names. A table of each file's PSNR is written beside it.
      batch_size: images at a time; does not change the result.
    """

    workdir: str = flags.flag(metavar="DIR")
    images: str = flags.flag(metavar="DIR")
    out: str = flags.flag()
    batch_size: int = 64

    def run(self) -> None:
        import numpy as np

        from binlatent.cli.sink import ImageSink
        from binlatent.images import grid_columns, psnr, to_float
        from binlatent.pipeline import Pipeline

        sink = ImageSink(self.out)
        model = Pipeline.load(self.workdir, batch_size=self.batch_size)
        shape, images = image_shape(model), Images(self.images, model)
        copies = 2 if sink.is_picture else 1
        sink.expect(copies * len(images), shape, columns=grid_columns(copies * len(images), copies))
        rows: list[tuple[str, float]] = []
        with sink, progress(len(images), "reconstruct") as bar:
            for indices, originals in images.batches(self.batch_size):
                restored = model.reconstruct(originals)
                scores = np.asarray(psnr(originals, restored)).tolist()
                rows += [(images.files[i], score) for i, score in zip(indices, scores, strict=True)]
                if sink.is_picture:
                    sink.add(np.stack([to_float(originals), restored], 1).reshape(-1, *shape))
                else:
                    sink.add(restored, names=[images.stems[i] for i in indices])
                bar.update(len(indices))
            if not rows:
                raise UserError(f"{self.images}: none of its {len(images)} images can be read")
            table = sink.table(("file", "psnr_db"), [(name, f"{score:.3f}") for name, score in rows], "psnr")
        _say_psnr(rows)
        say(f"{len(rows)} images: {sink.path}\nPSNR of each: {table}")


def _say_psnr(rows: list[tuple[str, float]]) -> None:
    """Every file's PSNR where they are few, and the mean with the extremes."""
    if len(rows) <= 20:
        for name, score in rows:
            say(f"  {name}: {score:.2f} dB")
    low, high = min(rows, key=lambda row: row[1]), max(rows, key=lambda row: row[1])
    mean = sum(score for _, score in rows) / len(rows)
    say(f"PSNR {mean:.2f} dB on average; lowest {low[1]:.2f} ({low[0]}), highest {high[1]:.2f} ({high[0]})")


class Images:
    """A person's images, in batches, with their names.

    Attributes:
      files: name of each image, relative to the folder.
      stems: the same without ending, as long as that names one file only.
    """

    def __init__(self, path: str, model: "Pipeline"):
        from binlatent import config as config_lib
        from binlatent.data.sources.folder import open_images

        self._options = config_lib.build_data(model.config)
        self._source: FolderSource = open_images(path, self._options)
        self.files = self._source.names()
        counts = Counter(os.path.splitext(name)[0] for name in self.files)
        self.stems = [stem if counts[stem := os.path.splitext(name)[0]] == 1 else name for name in self.files]

    def __len__(self) -> int:
        return len(self._source)

    def batches(self, size: int) -> "Iterator[tuple[list[int], np.ndarray]]":
        """(indices, images uint8 (b, h, w, c)) of the images that can be read."""
        import numpy as np

        from binlatent.data.loader import eval_batches

        for i, batch in enumerate(eval_batches(self._source, self._options, batch_size=size)):
            rows = np.flatnonzero(batch["mask"])
            if len(rows):
                yield (rows + i * size).tolist(), batch["image"][rows]


def image_shape(model: "Pipeline") -> tuple[int, int, int]:
    """(h, w, c) of the model's images.

    Raises:
      UserError: the model has no autoencoder.
    """
    if model.autoencoder is None:
        raise UserError("this model has no autoencoder: train or convert one into its work directory")
    net = model.autoencoder.net
    return net.resolution, net.resolution, net.image_channels
