"""ImageNet (1.28 million images in 1,000 classes), 256×256 pixels, 16×16×64 = 16,384 bits per image, conditioned on classes.

    tfds build imagenet2012 --file_format=array_record
    binlatent convert-features lpips
    binlatent run --config imagenet_256 --workdir runs/imagenet

From the paper: 64 bits per token. Our choices: a prior of 24 layers, width 1,024 and 16 heads, the size of MaskBit's and close
to BiGR's smallest (the paper does not give its own); its state is sharded over the devices of one machine (`fsdp`); guidance
increases towards the data, as in MaskBit, and its weight must be tuned for best scores. On several machines, set
`mesh.data=-1` and `mesh.fsdp` to the devices of one machine. Meant for 8 devices of 80 GB, or a slice v6e:2x4 of TPUs
(`docs/tpu.md` lists what was compiled for it); hours and scores have not been measured.
"""

from binlatent.config import load


def get_config(recipe: str = "paper"):
    config = load(f"lsun_churches_256:{recipe}")
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.data.name = "imagenet2012"
    config.data.validation_split = "validation"
    config.data.workers = 16
    config.autoencoder.code_bits = 64
    config.autoencoder_training.num_steps = 500_000
    config.plan.num_classes = 1000
    config.plan.topology = "v6e:2x4"
    config.autoencoder_training.batch_size = 128

    config.prior.width = 1024
    config.prior.heads = 16
    config.prior_objective.label_dropout = 0.1
    config.prior_training.num_steps = 800_000
    config.prior_training.batch_size = 512

    config.sampling.temperature = 1.0
    config.sampling.guidance = 3.0
    config.sampling.guidance_power = 1.0
    return config
