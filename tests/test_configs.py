"""Every shipped config, without its data: its cost, and that it compiles for eight devices."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest

from binlatent import config as config_lib
from binlatent.diffusion.prediction import product
from binlatent.errors import UserError
from binlatent.machines import plan
from binlatent.nets.condition import Conditioning
from binlatent.nets.official_denoiser import OfficialDenoiser
from binlatent.sampling import programs
from tests.convert.official_loss import OfficialLoss

DOCS = Path(__file__).parents[1] / "docs/configs.md"
BITS = {
    "digits": 128,
    "cifar10": 2048,
    "release": 128,
    "lsun_churches_256": 8192,
    "lsun_bedrooms_256": 8192,
    "ffhq_256": 8192,
    "ffhq_1024": 65536,
    "celebahq_1024": 65536,
    "image_folder_2048": 262144,
    "imagenet_256": 16384,
    "text_256": 16384,
}
CONFIGS = sorted(config_lib.shipped())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_prior_is_what_its_config_says(name):
    config = config_lib.load(name)
    mesh = config_lib.build_mesh(config)
    row = plan.plan(config, "prior", mesh)
    assert row.bits == BITS.get(name, row.bits)
    shards = mesh.shape["fsdp"]
    # parameters, two moments and an average, four bytes each; small arrays are on every device
    assert 16 * row.parameters / shards <= row.state_bytes < 1.02 * 16 * row.parameters / shards + 2**20
    # forward and backward take about 6 operations per parameter and token, attention some more
    y, x, _ = config_lib.build_autoencoder(config).code_shape
    assert 4 < row.flops / (row.parameters * row.batch_size * y * x) < 12  # less where there is a text tower
    assert config.autoencoder_training.batch_size % jax.device_count() == 0
    assert f"| `{name}` | prior | {row.bits:,} | {row.parameters / 1e6:.1f} M |" in DOCS.read_text(), (
        "docs/configs.md is not of these configs: run `binlatent plan --compile --out docs/configs.md`"
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_an_autoencoder_is_what_the_table_says(name):
    config = config_lib.load(name)
    stage, batch = plan.build_stage(config, "autoencoder")
    params = jax.eval_shape(lambda: stage.init(jax.random.key(0), batch)).params
    millions = sum(x.size for x in jax.tree.leaves(params)) / 1e6
    bits, size = math.prod(config_lib.build_autoencoder(config).code_shape), config.autoencoder_training.batch_size
    assert f"| `{name}` | autoencoder | {bits:,} | {millions:.1f} M | {size} |" in DOCS.read_text(), (
        "docs/configs.md is not of these configs: run `binlatent plan --compile --out docs/configs.md`"
    )


def test_the_release_s_recipe_is_its_network_its_loss_and_its_step():
    """Of any config: the same data, autoencoder and optimizer; the loss against the release's, in its own terms."""
    config, digits = config_lib.load("release:cifar10:folder"), config_lib.load("cifar10:folder")
    changed = {key.partition(".")[0] for key in config_lib.differences(digits, config)}
    assert changed == {"prior", "prior_objective", "sampling"}
    stage = config_lib.build_prior_stage(config, (2, 2, 4), Conditioning(num_classes=3))
    assert isinstance(stage.net, OfficialDenoiser) and stage.net.width == digits.prior.width
    options = config_lib.build_sampling(config)
    assert (options.posterior, options.last_step) == ("plugin", "argmax")

    t = stage.objective.times(jax.random.uniform(jax.random.key(0), (8,)))
    code, code_t = jax.random.bernoulli(jax.random.key(1), 0.5, (2, 8, 2, 2, 4))
    output = product(jax.random.normal(jax.random.key(2), (8, 2, 2, 4)))
    expected = OfficialLoss(schedule=stage.objective.schedule, total_steps=64)(output, code, code_t, t)
    np.testing.assert_allclose(stage.objective(output, code, code_t, t)["loss"], expected["loss"], rtol=1e-5)


def test_a_paper_config_has_a_modern_recipe():
    """Of every config that is based on the paper's first one: with the terms on the code, and all else the same."""
    for name in ("lsun_churches_256", "celebahq_1024", "text_256"):
        paper, modern = config_lib.load(name), config_lib.load(f"{name}:modern")
        assert config_lib.load(f"{name}:paper") == paper
        changed = config_lib.differences(paper, modern)
        assert set(changed) == {f"autoencoder_loss.{term}.weight" for term in ("sample_entropy", "batch_entropy")}
    with pytest.raises(UserError, match="no recipe 'old'"):
        config_lib.load("ffhq_256:old")


@pytest.mark.parametrize(("side", "shape"), [(28, (7, 7, 32)), (32, (4, 4, 128)), (64, (4, 4, 256)), (72, (9, 9, 64))])
def test_a_folder_s_small_variant_has_large_tokens_where_they_divide(side, shape):
    config = config_lib.load(f"image_folder:{side},small")
    assert config_lib.build_autoencoder(config).code_shape == shape


def test_lengths_of_runs_are_whole_epochs_apart():
    """A warm-up ends, and the discriminator starts, well before the run does."""
    for name in CONFIGS:
        config = config_lib.load(name)
        for stage in ("autoencoder", "prior"):
            assert 5 * config[f"{stage}_optimizer"].warmup_steps < config[f"{stage}_training"].num_steps
        assert 4 * config.autoencoder_loss.adversarial.start_step < config.autoencoder_training.num_steps


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_training_and_sampling_compile_for_eight_devices(name):
    config = config_lib.load(name)
    mesh = config_lib.build_mesh(config)
    for stage in ("autoencoder", "prior"):
        row = plan.plan(config, stage, mesh, compiled=True)
        assert row.temporary_bytes > 0
    shapes, settings = plan.sampling(config, mesh, batch_size=8)
    programs.generate.lower(*shapes, **settings).compile()
