"""FFHQ (70 thousand faces) at 1024×1024 pixels, 32×32×64 = 65,536 bits per image, all sampled jointly.

    binlatent convert-features lpips
    binlatent run --config ffhq_1024 --config.data.path=DIR --workdir runs/ffhq1024

From the paper: 32×32 tokens of 64 bits. Our choices: 2×2 pixels are folded into channels, so that the largest feature maps
are 512×512 (at 1024×1024, one would take 268 MB per image); the discriminator has one more layer, for larger patches; the
prior has four times the tokens of 256×256, so its activations are recomputed and its state is sharded (`fsdp`). On several
machines, set `mesh.data=-1` and `mesh.fsdp` to the devices of one machine, because gathering parameters over a network is
slow. Meant for 8 devices of 80 GB, or a slice v5p:2x2x2 of TPUs (`docs/tpu.md` lists what was compiled for it); hours and
scores have not been measured.
"""

from binlatent.config import load


def get_config(recipe: str = "paper"):
    config = load(f"ffhq_256:{recipe}")
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.data.resolution = 1024
    config.data.workers = 16
    config.plan.topology = "v5p:2x2x2"
    config.autoencoder.patch_size = 2
    config.autoencoder.attention_resolutions = (32,)
    config.autoencoder.code_bits = 64
    config.discriminator.layers = 4
    config.autoencoder_training.batch_size = 32
    config.autoencoder_training.evaluate_batches = 16

    config.prior.remat = "full"
    config.prior_training.batch_size = 128
    config.prior_training.num_steps = 500_000
    return config
