"""Stage 1 with its discriminator: who gets whose gradient, the adaptive weight, and independence of how a batch is
cut."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import mesh as mesh_lib
from binlatent import prng
from binlatent.nets.autoencoder import BinaryAutoencoder
from binlatent.nets.official_discriminator import PatchDiscriminator
from binlatent.nets.patchgan import PatchGAN
from binlatent.train import regularizers
from binlatent.train.adversarial import Adversarial
from binlatent.train.augment import Augmentation
from binlatent.train.autoencoder import AutoencoderStage
from binlatent.train.discriminator import DiscriminatorTraining
from binlatent.train.optimizer import Optimizer
from binlatent.train.terms import Term
from tests import tiny

# Compiled without optimisation: these tests run everything once.
jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)

NET = BinaryAutoencoder(
    resolution=16, patch_size=2, channels=8, channel_multipliers=(1,), res_blocks=1, attention_resolutions=(), code_bits=5,
    embedding_width=8,
)  # fmt: skip
AUGMENTATION = Augmentation(color=0.5, translation=0.125, cutout=0.25)
STEP = 7


def stage_of(*, terms=(), adversarial=None, start_step=0, disc=None, augmentation=AUGMENTATION, **kwargs):
    return AutoencoderStage(
        net=NET,
        terms=(Term(name="l1"), Term(name="sample_entropy", weight=0.1), *terms)
        + (() if adversarial is None else (Term(name="adversarial", weight=0.3, start_step=start_step),)),
        optimizer=Optimizer(learning_rate=1e-3),
        num_steps=100,
        discriminator=None
        if adversarial is None
        else DiscriminatorTraining(
            net=disc or PatchGAN(channels=8, layers=1),
            adversarial=adversarial,
            augmentation=augmentation,
            optimizer=Optimizer(learning_rate=1e-3, weight_decay=0.1),
        ),
        **kwargs,
    )


def batch_of(num=8, seed=0):
    return {"image": jnp.asarray(np.random.default_rng(seed).integers(0, 256, (num, 16, 16, 3), np.uint8))}


def state_of(stage):
    """A state in the middle of a run. Filled by numpy: compiling the initialisers takes longer than all else here."""
    state = jax.eval_shape(lambda: stage.init(jax.random.key(0), batch_of()))
    random = np.random.default_rng(0)

    def fill(path, x):
        name = mesh_lib.path_name(path)
        if name.startswith(("params", "ema")) or name.endswith("/u"):
            size = max(np.prod(x.shape[:-1]), 1) ** -0.5
            return jnp.asarray(random.standard_normal(x.shape) * size + name.endswith("scale"), x.dtype)
        return jnp.ones(x.shape, x.dtype) if name.endswith(("var", "sigma")) else jnp.zeros(x.shape, x.dtype)

    return dataclasses.replace(jax.tree_util.tree_map_with_path(fill, state), step=jnp.asarray(STEP, jnp.int32))


def keys_of(num=8):
    return prng.per_example(jax.random.key(1), num)


def reference(stage, state, images, keys):
    """The two losses and their sum written down plainly, as functions of the networks' parameters."""
    adversarial = stage.discriminator.adversarial
    noise = prng.uniform(prng.fold(keys, 0), NET.code_shape)
    keys = prng.fold(keys, 1)
    real = stage.discriminator.augmentation(prng.fold(keys, 1), images)

    def discriminate(params, x):
        variables = {"params": params, "batch_stats": state.extra["statistics"]}
        return stage.discriminator.net.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    def reconstruct(params):
        return NET.apply({"params": params}, images, noise)

    def of_images(params):
        return jnp.abs(images - reconstruct(params)[0]).mean()

    def of_code(params):
        return 0.1 * regularizers.sample_entropy(reconstruct(params)[1]).mean()

    def against(params):
        made = stage.discriminator.augmentation(prng.fold(keys, 2), reconstruct(params)[0])
        return adversarial.generator_loss(discriminate(state.params["discriminator"], made)).mean()

    def discriminator_loss(params):
        made = reconstruct(state.params["autoencoder"])[0]
        logits = (
            discriminate(params, real),
            discriminate(params, stage.discriminator.augmentation(prng.fold(keys, 2), made)),
        )
        lecam = adversarial.lecam(*logits, state.extra["averages"]).mean()
        return adversarial.discriminator_loss(*logits).mean() + adversarial.lecam_weight * lecam

    return of_images, of_code, against, discriminator_loss


def assert_trees_close(got, expected, tolerance=1e-4):
    """Equal up to rounding: relative to an array's largest value, or to a hundredth of the tree's where all of it is
    tiny."""
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True):
        size = max(float(jnp.abs(b).max()), largest / 100, 1e-12)
        np.testing.assert_allclose(a / size, b / size, atol=tolerance, err_msg=mesh_lib.path_name(path))


@pytest.mark.parametrize("kind", ["hinge", pytest.param("non_saturating", marks=pytest.mark.slow)])
def test_one_pass_equals_two(kind):
    """Adaptive weight and both gradients against plain differentiation, one loss at a time."""
    stage = stage_of(adversarial=Adversarial(kind=kind, max_adaptive_weight=1e4, lecam_weight=0.1))
    state, keys, images = state_of(stage), keys_of(), jnp.asarray(batch_of()["image"]) / 255
    state = dataclasses.replace(
        state, extra=state.extra | {"averages": {"real": jnp.float32(1), "fake": jnp.float32(-1)}}
    )
    of_images, of_code, against, discriminator_loss = reference(stage, state, images, keys)

    got = jit(lambda state: stage.gradients(state, batch_of(), keys))(state)

    @jit
    def expected(params):
        kernels = [jax.grad(f)(params["autoencoder"])["decoder"]["conv_out"]["kernel"] for f in (of_images, against)]
        weight = jnp.linalg.norm(kernels[0].ravel()) / (jnp.linalg.norm(kernels[1].ravel()) + 1e-4)
        total = jax.grad(lambda p: of_images(p) + of_code(p) + 0.3 * weight * against(p))
        return weight, total(params["autoencoder"]), jax.grad(discriminator_loss)(params["discriminator"])

    weight, autoencoder, discriminator = expected(state.params)
    assert 1 < float(weight) < 1e4  # neither clipped nor trivially one
    np.testing.assert_allclose(got["values"]["adaptive_weight"], weight, rtol=1e-5)
    assert_trees_close(got["gradients"]["autoencoder"], autoencoder)
    assert_trees_close(got["gradients"]["discriminator"], discriminator)


def test_adaptive_weight_is_clipped():
    stage = stage_of(adversarial=Adversarial(max_adaptive_weight=0.5))
    got = jit(lambda state: stage.gradients(state, batch_of(), keys_of()))(state_of(stage))
    np.testing.assert_allclose(got["values"]["adaptive_weight"], 0.5)


def test_the_adaptive_weight_costs_no_second_backward_pass():
    def flops(adaptive):
        stage = stage_of(adversarial=Adversarial(adaptive=adaptive), augmentation=Augmentation())
        state = jax.eval_shape(lambda: stage.init(jax.random.key(0), batch_of()))
        step = jit(lambda state, batch: stage.train_step(state, batch, jax.random.key(1)))
        return step.lower(state, batch_of()).compile().cost_analysis()["flops"]

    without, with_adaptive = flops(False), flops(True)
    assert with_adaptive < 1.03 * without, (without, with_adaptive)


class Silenced(Adversarial):
    """An adversarial game in which one side's loss is zero."""

    def __init__(self, side):
        super().__init__(max_adaptive_weight=1e4)
        object.__setattr__(self, "side", side)

    def generator_loss(self, made):
        return super().generator_loss(made) * (self.side != "autoencoder")

    def discriminator_loss(self, real, made):
        return super().discriminator_loss(real, made) * (self.side != "discriminator")


def test_each_network_learns_from_its_own_loss_only():
    def gradients(adversarial):
        stage = stage_of(adversarial=adversarial)
        return jit(lambda state: stage.gradients(state, batch_of(), keys_of()))(state_of(stage))["gradients"]

    both = gradients(Adversarial(max_adaptive_weight=1e4))
    no_discriminator, no_generator = gradients(Silenced("discriminator")), gradients(Silenced("autoencoder"))
    plain = stage_of()
    alone = jit(lambda state: plain.gradients(state, batch_of(), keys_of()))(state_of(plain))["gradients"]
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(no_discriminator["discriminator"]))
    assert_trees_close(no_discriminator["autoencoder"], both["autoencoder"])
    assert_trees_close(no_generator["discriminator"], both["discriminator"])
    assert_trees_close(no_generator["autoencoder"], alone["autoencoder"])
    with pytest.raises(AssertionError):
        assert_trees_close(both["autoencoder"], alone["autoencoder"])


@pytest.mark.parametrize(
    "disc", [PatchGAN(channels=8, layers=1, norm="spectral"), PatchDiscriminator(channels=8, layers=1)]
)
def test_the_discriminator_waits_for_its_start(disc):
    stage = stage_of(adversarial=Adversarial(lecam_weight=0.1), start_step=STEP + 1, disc=disc)
    step = jit(lambda state: stage.train_step(state, batch_of(), jax.random.key(1)))
    before = state_of(stage)
    waiting, values = step(before)
    assert float(values["adaptive_weight"]) == 0
    for part in ("params", "opt_state"):
        old, new = getattr(before, part), getattr(waiting, part)
        assert all(map(np.array_equal, jax.tree.leaves(old["discriminator"]), jax.tree.leaves(new["discriminator"])))
        assert not all(map(np.array_equal, jax.tree.leaves(old["autoencoder"]), jax.tree.leaves(new["autoencoder"])))
    assert all(map(np.array_equal, jax.tree.leaves(before.extra), jax.tree.leaves(waiting.extra)))
    started, values = step(waiting)
    assert float(values["adaptive_weight"]) > 0 and bool(values["finite"])
    old, new = waiting.params["discriminator"], started.params["discriminator"]
    assert not any(map(np.array_equal, jax.tree.leaves(old), jax.tree.leaves(new)))
    assert not any(map(np.array_equal, jax.tree.leaves(waiting.extra), jax.tree.leaves(started.extra)))

    assert stage.complete_from == STEP + 1 and stage_of().complete_from == 0
    early, values = jit(lambda state: stage.early().train_step(state, batch_of(), jax.random.key(1)))(before)
    assert "adversarial" not in values
    assert jax.tree.structure(early) == jax.tree.structure(waiting)
    for a, b in zip(jax.tree.leaves(early), jax.tree.leaves(waiting), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", [pytest.param("group", marks=pytest.mark.slow), "spectral"])
def test_micro_batches_and_devices_change_nothing(norm):
    def run(micro_batches, devices):
        stage = stage_of(
            adversarial=Adversarial(max_adaptive_weight=1e4, lecam_weight=0.1), micro_batches=micro_batches,
            disc=PatchGAN(channels=8, layers=1, norm=norm),
        )  # fmt: skip
        mesh = mesh_lib.MeshShape(data=-1).build(jax.devices()[:devices])
        state = jax.device_put(state_of(stage), mesh_lib.replicated(mesh))
        batch = mesh_lib.to_mesh(batch_of(16), mesh)
        return jit(lambda state, batch: stage.train_step(state, batch, jax.random.key(1)))(state, batch)

    (whole, values), *others = run(1, 1), run(2, 1), run(1, 8)
    for state, other in others:
        for name, value in values.items():
            np.testing.assert_allclose(other[name], value, rtol=2e-4, atol=1e-6, err_msg=name)
        # Adam's first step is the sign of the gradient: compare its moments, not the parameters
        for name, opt_state in whole.opt_state.items():
            assert_trees_close(state.opt_state[name], opt_state)
        assert_trees_close(state.extra, whole.extra)


def test_evaluation_names_every_term_and_ignores_padding():
    stage = stage_of(adversarial=Adversarial(), terms=(Term(name="batch_entropy"), Term(name="l2")))
    state, batch = state_of(stage), batch_of()
    evaluate = jit(lambda state, batch: stage.eval_step(state, batch, jax.random.key(1)))

    def metrics_of(rows, mask):
        return evaluate(state, {"image": batch["image"][np.array(rows)], "mask": np.array(mask)})

    metrics = metrics_of([0, 1, 2, 3], [True] * 4)
    padded = metrics_of([0, 1, 2, 3, 7, 6], [True] * 4 + [False] * 2)
    names = {"l1", "l2", "sample_entropy", "batch_entropy", "adversarial", "discriminator", "discriminator_accuracy",
             "logits_real", "logits_fake", "psnr", "bit_uncertainty", "code"}  # fmt: skip
    assert set(metrics) == names
    for name in names - {"code"}:
        np.testing.assert_allclose(padded[name].compute(), metrics[name].compute(), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("terms", "discriminator", "message"),
    [
        ((Term(name="l3"),), False, "l3"),
        ((Term(name="lpips"),), False, "weights"),
        ((Term(name="adversarial"),), False, "discriminator"),
        ((), True, "discriminator"),
    ],
)
def test_incomplete_terms_are_refused(terms, discriminator, message):
    discriminator = stage_of(adversarial=Adversarial()).discriminator if discriminator else None
    with pytest.raises(ValueError, match=message):
        AutoencoderStage(
            net=NET, terms=terms, optimizer=Optimizer(learning_rate=1e-3), num_steps=1, discriminator=discriminator
        )


@pytest.mark.parametrize(("field", "value"), [("image_channels", 4), ("resolution", 8)])
def test_images_unsuitable_for_perceptual_networks_are_refused(field, value):
    net = dataclasses.replace(NET, **{field: value})
    with pytest.raises(ValueError, match=str(value)):
        AutoencoderStage(
            net=net,
            terms=(Term(name="lpips"),),
            optimizer=Optimizer(learning_rate=1e-3),
            num_steps=1,
            frozen={"lpips": {}},
        )


def test_perceptual_terms_read_frozen_weights_and_grey_images():
    from binlatent.nets.vgg import LPIPS

    net = dataclasses.replace(NET, image_channels=1)
    zeros = jnp.zeros((1, 16, 16, 3))
    shapes = jax.eval_shape(LPIPS().init, jax.random.key(0), zeros, zeros)["params"]
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.random(x.shape, np.float32) - 0.4, shapes)
    stage = AutoencoderStage(
        net=net,
        terms=(Term(name="lpips"),),
        optimizer=Optimizer(learning_rate=1e-3),
        num_steps=9,
        frozen={"lpips": params},
    )
    batch = {"image": batch_of(2)["image"][..., :1]}
    state = state_of(stage)
    result = jit(lambda state: stage.gradients(state, batch, keys_of(2)))(state)
    images = jnp.asarray(batch["image"]) / 255
    noise = prng.uniform(prng.fold(keys_of(2), 0), net.code_shape)
    made = net.apply({"params": state.params["autoencoder"]}, images, noise)[0]
    pair = (jnp.broadcast_to(x, (2, 16, 16, 3)) for x in (made, images))
    np.testing.assert_allclose(result["loss"], LPIPS().apply({"params": params}, *pair).mean(), rtol=1e-5)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(result["gradients"]))


def train_and_read(tmp_path, capsys, **overrides):
    """Trains stage 1 of the tiny config; the warnings printed at its first evaluation, and that evaluation's record."""
    from binlatent.experiment import Experiment
    from binlatent.train.metrics import read_records

    Experiment.open(tmp_path / "run", tiny.config(tiny.npz(tmp_path), **overrides)).train("autoencoder")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    records = [r for r in read_records(tmp_path / "run" / "autoencoder") if "validation/psnr" in r]
    return said, records[0]


SMALL_DISCRIMINATOR = {
    "autoencoder_loss__adversarial__weight": 0.1,
    "discriminator__channels": 8,
    "discriminator__layers": 1,
}


def test_a_diverging_discriminator_is_reported_at_the_next_evaluation(tmp_path, capsys):
    said, record = train_and_read(tmp_path, capsys, **SMALL_DISCRIMINATOR, discriminator_optimizer__learning_rate=3.0)
    assert record["step"] == 3
    assert any("the discriminator diverges" in line for line in said)
    assert record["validation/warnings"] >= 1
    assert not record["validation/discriminator"] < 5 or abs(record["validation/logits_real"]) > 20


def test_dying_bits_are_reported_at_the_next_evaluation(tmp_path, capsys):
    said, record = train_and_read(
        tmp_path, capsys, autoencoder_loss__batch_entropy__weight=-100.0, autoencoder_optimizer__learning_rate=0.3,
        autoencoder_optimizer__ema_decay=0.0, autoencoder_training__num_steps=20,
        autoencoder_training__evaluate_every=20,
    )  # fmt: skip
    assert record["step"] == 20
    assert any("bits are dead" in line or "repeat another" in line for line in said)
    assert record["validation/dead_bits"] + record["validation/repeated_bits"] >= 1
    assert record["validation/warnings"] >= 1


def test_bf16_networks_keep_float32_losses_and_gradients():
    exact = stage_of(adversarial=Adversarial(max_adaptive_weight=1e4))
    rough = dataclasses.replace(
        exact,
        net=dataclasses.replace(NET, dtype=jnp.bfloat16),
        discriminator=dataclasses.replace(exact.discriminator, net=PatchGAN(channels=8, layers=1, dtype=jnp.bfloat16)),
    )
    state = state_of(exact)
    a, b = (jit(lambda state, s=s: s.gradients(state, batch_of(), keys_of()))(state) for s in (exact, rough))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(b))
    for name, value in a["values"].items():
        np.testing.assert_allclose(b["values"][name], value, rtol=0.1, atol=0.01, err_msg=name)


@pytest.mark.slow
def test_init_from_takes_over_the_discriminator_s_statistics(tmp_path):
    """They belong to its parameters: with fresh ones it would score the first batches on another scale."""
    from binlatent.checkpoint import load_parts
    from binlatent.experiment import Experiment

    def trained(name, init_from=None, **overrides):
        config = tiny.config(
            tiny.npz(tmp_path), **SMALL_DISCRIMINATOR, discriminator__norm="spectral", autoencoder_training__num_steps=2,
            discriminator_optimizer__learning_rate=1e-3, **overrides,
        )  # fmt: skip
        Experiment.open(tmp_path / name, config).train("autoencoder", init_from=init_from)
        return load_parts(tmp_path / name / "autoencoder" / "checkpoints", ("extra",))[1]["extra"]

    old = trained("old")
    assert jax.tree.leaves(old["statistics"]) and all(np.any(leaf) for leaf in jax.tree.leaves(old["averages"]))
    # before its start the discriminator's statistics do not move
    new = trained("new", init_from=tmp_path / "old", autoencoder_loss__adversarial__start_step=100)
    jax.tree.map(np.testing.assert_array_equal, old, new)
