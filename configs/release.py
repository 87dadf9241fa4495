"""The recipe of the PyTorch release for the prior, to compare with at equal size and compute.

    binlatent run --config release:digits --workdir runs/release
    binlatent run --config release:cifar10 --config.data.path=TFDS_DATA_DIR --workdir runs/release_cifar10

The word after the colon names the config (`digits` unless given) whose data, autoencoder, optimizer and size of the prior
are taken. From the commands that the release publishes (bernoulli-diffusion/README.md there): 64 steps, the linear schedule,
the balanced loss of flips and no auxiliary term. From its code: its transformer, independent bits, the `plugin` step, and an
argmax as the last one. For its plain loss, set `prior_objective.weighting=uniform` and `prior_objective.parametrization=flip`.
To train both priors on the same codes, let them share an autoencoder:

    python -m binlatent.machines.prior_ablation --workdir runs/digits --out runs/arms --arm release:config=release:digits
"""

from ml_collections import ConfigDict

from binlatent.config import load


def get_config(argument: str = "digits"):
    config = load(argument)
    config.plan.topology = ""
    size = {name: config.prior[name] for name in ("width", "depth", "heads", "dtype")}
    with config.unlocked():
        config.prior = ConfigDict(size | {"architecture": "official", "total_steps": 64, "predict": "flip"})
    config.prior_objective.schedule = "linear"
    config.prior_objective.weighting = "balanced"
    config.prior_objective.total_steps = 64
    config.sampling.steps = min(config.sampling.steps, 64)
    config.sampling.posterior = "plugin"
    config.sampling.last_step = "argmax"
    return config
