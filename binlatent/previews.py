"""Pictures of what a model makes: samples of its conditions in turn, and which images to reconstruct."""

import numpy as np
from ml_collections import ConfigDict

from binlatent import config as config_lib
from binlatent.data.codes import CodeSource
from binlatent.data.loader import eval_batches, spread_images
from binlatent.data.splits import Splits
from binlatent.data.spread import Spread
from binlatent.data.texts import CaptionedCodes
from binlatent.images import image_grid
from binlatent.nets.condition import Condition
from binlatent.pipeline import Pipeline
from binlatent.sampling.conditions import Conditions, conditioning

NUM = 64  # samples of a picture; half as many reconstructions


def samples(pipeline: Pipeline, source: CodeSource | CaptionedCodes) -> np.ndarray:
    """A picture of samples: of every class, of the config's prompts, or with conditions of a source."""
    metadata, given, columns = pipeline.prior.metadata, None, 8
    wanted, prompts = conditioning(metadata), config_lib.build_text(pipeline.config).prompts
    if wanted.num_classes and not (wanted.texts or wanted.vector_width):
        columns = min(wanted.num_classes, 10)
        given = pipeline.conditions(labels=np.arange(columns))
    elif prompts and not wanted.num_classes and wanted.texts:
        columns = min(len(prompts), 8)
        given = pipeline.conditions(prompts=prompts)
    elif wanted:
        batch = next(eval_batches(Spread(source, NUM), config_lib.build_data(pipeline.config), batch_size=NUM))
        given = Conditions(values=Condition.of(batch))
    return sample_grid(pipeline, given, seed=pipeline.config.seed, num=max(NUM, len(prompts)), columns=columns)


def sample_grid(pipeline: Pipeline, given: Conditions | None, *, seed: int, num: int, columns: int) -> np.ndarray:
    """A picture of about `num` samples with the given conditions in turn."""
    return image_grid(pipeline.sample(seed=seed, num=columns * max(1, num // columns), condition=given), columns)


def images_of(splits: Splits, config: ConfigDict) -> np.ndarray:
    """Validation images, spread evenly over the set, for pictures of reconstructions."""
    return spread_images(splits.validation, config_lib.build_data(config), NUM // 2)
