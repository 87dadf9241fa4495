"""CIFAR-10 (50,000 images of 32×32 in 10 classes), from TFDS or from a folder with one sub-folder per class.

    binlatent run --config cifar10 --config.data.path=TFDS_DATA_DIR --workdir runs/cifar10
    binlatent run --config cifar10:folder --config.data.path=DIR --workdir runs/cifar10

Meant for one GPU or more: 8×8×32 = 2,048 bits per image. The config has not been run to the end. For a CPU, use
`image_folder:32,small` on a folder.
"""

from binlatent.config import defaults


def get_config(source: str = "tfds"):
    config = defaults()
    config.data.source = source
    if source == "tfds":
        config.data.name = "cifar10"
        config.data.validation_split = "test"
    config.data.resolution = 32
    config.data.flip = True
    config.plan.num_classes = 10

    config.autoencoder.channels = 128
    config.autoencoder.channel_multipliers = (1, 2, 4)
    config.autoencoder.attention_resolutions = (8,)
    config.autoencoder.code_bits = 32
    config.autoencoder_optimizer.learning_rate = 2e-4
    config.autoencoder_optimizer.warmup_steps = 500
    config.autoencoder_optimizer.schedule = "cosine"
    config.autoencoder_training.num_steps = 60_000
    config.autoencoder_training.batch_size = 128
    config.autoencoder_training.evaluate_batches = 16

    config.codes.flips = True
    config.prior.width = 512
    config.prior.depth = 12
    config.prior.heads = 8
    config.prior_optimizer.learning_rate = 3e-4
    config.prior_optimizer.warmup_steps = 1000
    config.prior_optimizer.schedule = "cosine"
    config.prior_optimizer.weight_decay = 0.01
    config.prior_optimizer.ema_decay = 0.9999
    config.prior_training.num_steps = 200_000
    config.prior_training.batch_size = 256
    config.prior_training.evaluate_batches = 16

    config.sampling.steps = 32
    config.sampling.guidance = 1.0
    return config
