"""LSUN churches (126 thousand photographs), 256×256 pixels, 16×16×32 = 8,192 bits per image: the paper's first data set.

    tfds build lsun/church_outdoor --file_format=array_record
    binlatent convert-features lpips
    binlatent run --config lsun_churches_256 --workdir runs/churches

From the paper and its release: 32 bits per token, five levels with a base width of 128 and attention at 16×16, LPIPS and a
hinge discriminator with the adaptive weight, a prior of 24 layers, width 768 and 12 heads, 64 steps at temperature 0.9, the
auxiliary KL with weight 0.1. Our choices: Adam for stage 1 as in VQGAN; the discriminator starts once reconstructions have
taken shape; a batch of 256 codes, which fits one 80 GB device; EMA over about one epoch (stage 1) and twenty epochs
(stage 2); mirrored images. Meant for 8 devices of at least 32 GB (`docs/configs.md` has the memory), or a slice v5e:2x4 of TPUs
(`docs/tpu.md`); hours and scores have not been measured. On fewer devices, increase `micro_batches`: the result is the same.

`lsun_churches_256:modern` has what our ablations of small models chose instead of the paper's loss: both entropies of the bits
in stage 1 (`docs/ablation.md`). The configs that are based on this one take the same word. At this size neither recipe has been
run.
"""

from binlatent.config import defaults


def get_config(recipe: str = "paper"):
    if recipe not in ("paper", "modern"):
        raise ValueError(f"no recipe {recipe!r}: paper or modern")
    config = defaults()
    config.data.source = "tfds"
    config.data.name = "lsun/church_outdoor"
    config.data.validation_fraction = 0.02
    config.data.resolution = 256
    config.data.flip = True
    config.data.workers = 8
    config.plan.topology = "v5e:2x4"

    config.autoencoder.channels = 128
    config.autoencoder.channel_multipliers = (1, 1, 2, 2, 4)
    config.autoencoder.res_blocks = 2
    config.autoencoder.attention_resolutions = (16,)
    config.autoencoder.code_bits = 32
    config.autoencoder.embedding_width = 256
    config.autoencoder.dtype = "bfloat16"
    config.autoencoder_loss.l1.weight = 1.0
    config.autoencoder_loss.lpips.weight = 1.0
    config.autoencoder_loss.adversarial.weight = 1.0
    config.autoencoder_loss.adversarial.start_step = 30_000
    if recipe == "paper":  # which has no such terms
        config.autoencoder_loss.sample_entropy.weight = 0.0
        config.autoencoder_loss.batch_entropy.weight = 0.0
    config.discriminator.dtype = "bfloat16"
    for name in ("autoencoder_optimizer", "discriminator_optimizer"):
        config[name].learning_rate = 1e-4
        config[name].warmup_steps = 2_000
        config[name].b1 = 0.5
        config[name].b2 = 0.9
    config.autoencoder_optimizer.ema_decay = 0.9995
    config.autoencoder_training.num_steps = 300_000
    config.autoencoder_training.batch_size = 64
    config.autoencoder_training.evaluate_every = 5_000
    config.autoencoder_training.evaluate_batches = 32
    config.autoencoder_training.checkpoint_every = 2_500
    config.autoencoder_training.keep_every = 50_000

    config.codes.flips = True
    config.prior.width = 768
    config.prior.depth = 24
    config.prior.heads = 12
    config.prior.dtype = "bfloat16"
    config.prior.remat = "dots"
    config.prior_objective.auxiliary = 0.1
    config.prior_optimizer.learning_rate = 2e-4
    config.prior_optimizer.warmup_steps = 5_000
    config.prior_optimizer.b2 = 0.99
    config.prior_optimizer.ema_decay = 0.9999
    config.prior_training.num_steps = 500_000
    config.prior_training.batch_size = 256
    config.prior_training.evaluate_every = 5_000
    config.prior_training.evaluate_batches = 16
    config.prior_training.checkpoint_every = 2_500
    config.prior_training.keep_every = 50_000

    config.sampling.steps = 64
    config.sampling.temperature = 0.9
    return config
