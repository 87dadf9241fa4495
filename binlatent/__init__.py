"""Binary Latent Diffusion (Wang et al., CVPR 2023) in JAX and Flax."""

__version__ = "0.2.0"


def load(workdir, **options):
    """Opens a trained model: a `binlatent.pipeline.Pipeline` over a work directory (see `Pipeline.load`)."""
    from binlatent.pipeline import Pipeline

    return Pipeline.load(workdir, **options)
