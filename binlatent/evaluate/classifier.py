"""Trains a classifier on a work directory's data; its features score samples where Inception's weights are missing."""

from etils import epath

from binlatent import config as config_lib
from binlatent.checkpoint import versions
from binlatent.data.loader import Validation, batch_spec, fitting_batch_size, train_batches
from binlatent.errors import UserError
from binlatent.experiment import SPLIT_SEED, Experiment
from binlatent.mesh import batch_divisor
from binlatent.nets.classifier import FeatureClassifier
from binlatent.train.classifier import ClassifierStage
from binlatent.train.loop import train
from binlatent.train.optimizer import Optimizer
from binlatent.train.options import Training


def train_classifier(workdir: epath.PathLike, *, num_steps: int = 2000, batch_size: int = 128, seed: int = 0) -> None:
    """Trains a classifier on the work directory's data, or resumes it, and writes it to `classifier/`.

    Raises:
      UserError: the data have no labels, or the batch cannot be divided over the devices.
    """
    experiment = Experiment.open(workdir)
    splits, data = experiment.splits(), config_lib.build_data(experiment.config)
    if splits.num_classes < 2:
        raise UserError(
            f"a classifier needs labels of at least 2 classes; {splits.train!r} has {splits.num_classes}. "
            "Use Inception's weights, or features of your own: --features yours.py"
        )
    mesh = config_lib.build_mesh(experiment.config)
    try:
        batch_size = fitting_batch_size(len(splits.train), batch_size, divisor=batch_divisor(mesh))
    except ValueError as error:
        raise UserError(f"--batch_size {batch_size}: {error}") from error
    optimizer = Optimizer(
        learning_rate=1e-3, schedule="cosine", warmup_steps=min(100, num_steps // 10), weight_decay=0.05
    )
    train(
        ClassifierStage(
            net=FeatureClassifier(num_classes=splits.num_classes), optimizer=optimizer, num_steps=num_steps
        ),
        name="classifier",
        training=Training(num_steps=num_steps, batch_size=batch_size, evaluate_every=500, checkpoint_every=500),
        batch_spec=batch_spec(splits.train, data, batch_size),
        train_batches=lambda step: train_batches(splits.train, data, seed=seed, batch_size=batch_size, start_step=step),
        eval_batches=Validation(splits.validation, data, batch_size=batch_size),
        mesh=mesh,
        seed=seed,
        folder=experiment.workdir / "classifier",
        metadata={
            "stage": "classifier",
            "data": splits.fingerprint,
            "num_classes": splits.num_classes,
            "split_seed": SPLIT_SEED,
            "versions": versions(),
        },
    )
