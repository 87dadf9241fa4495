"""Handwritten digits (scikit-learn's, 1,797 of 8×8 grey): the quickstart.

    binlatent run --config digits --workdir runs/digits

Runs on a CPU. On one of two cores, the other one busy, the autoencoder trained for 2.6 minutes and the prior for 12.6
(seed 0): 23.2 dB PSNR on held-out digits, no dead bits, 0.396 bits per bit, and 99 % of the samples recognised
(docs/few_steps.md).
"""

from binlatent.config import defaults


def get_config():
    config = defaults()
    config.data.source = "digits"
    config.data.resolution = 8
    config.data.channels = 1
    config.plan.num_classes = 10
    config.plan.topology = "v5e:2x4"

    # convolutions on few channels at high resolution are slow on a CPU, so 2×2 pixels are folded into channels
    config.autoencoder.patch_size = 2
    config.autoencoder.channels = 96
    config.autoencoder.channel_multipliers = (1,)
    config.autoencoder.res_blocks = 1
    config.autoencoder.attention_resolutions = ()
    config.autoencoder.code_bits = 8  # 4×4×8 = 128 bits per image, a quarter of the 512 bits of its pixels
    config.autoencoder.embedding_width = 64
    config.autoencoder_optimizer.learning_rate = 1e-3
    config.autoencoder_optimizer.schedule = "cosine"
    config.autoencoder_optimizer.warmup_steps = 50
    config.autoencoder_optimizer.ema_decay = 0.99
    config.autoencoder_training.num_steps = 1000
    config.autoencoder_training.batch_size = 64
    config.autoencoder_training.evaluate_every = 250
    config.autoencoder_training.checkpoint_every = 500

    config.codes.views = 8  # 1,604 images are few: drawn codes keep the prior from learning theirs by heart
    config.prior.width = 128
    config.prior.depth = 4
    config.prior.heads = 4
    config.prior.code_components = 8
    config.prior.components = 4
    config.prior_optimizer.learning_rate = 2e-3
    config.prior_optimizer.schedule = "cosine"
    config.prior_optimizer.warmup_steps = 100
    config.prior_optimizer.weight_decay = 0.05
    config.prior_optimizer.ema_decay = 0.995
    config.prior_training.num_steps = 2500
    config.prior_training.batch_size = 128
    config.prior_training.evaluate_every = 500
    config.prior_training.checkpoint_every = 500

    config.student_training.num_steps = 400  # of `binlatent train --stage student`: docs/few_steps.md
    config.student_training.evaluate_every = 200
    config.student_training.checkpoint_every = 200

    config.sampling.steps = 16
    config.sampling.guidance = 0.0  # samples match their classes without guidance, which would reduce variety
    return config
