"""Imported checkpoints and our mathematics, compared with numbers from the official implementation."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.convert.autoencoder import import_autoencoder
from binlatent.convert.denoiser import import_denoiser
from binlatent.convert.hyperparameters import Hyperparameters
from binlatent.convert.torch_file import read_state
from binlatent.diffusion import process
from binlatent.diffusion.objective import Objective
from binlatent.diffusion.prediction import product
from binlatent.diffusion.schedule import schedule
from binlatent.sampling.guidance import Guidance, guide
from binlatent.train import regularizers
from tests import tiny
from tests.convert.official_loss import OfficialLoss

AUTOENCODERS = ("autoencoder", "autoencoder_tanh")
DENOISERS = ("denoiser", "denoiser_class", "denoiser_text_token", "denoiser_text_cross")
SCHEDULES = {"linear": "linear", "cos": "cosine", "sigmoid": "sigmoid"}


def _open(reference, case, file, read):
    folder = os.path.join(reference, case)
    state = read_state(os.path.join(folder, "saved_models", file))
    imported = read(state, Hyperparameters(os.path.join(folder, "hparams.json")), file)
    return imported, np.load(os.path.join(folder, "io.npz"))


@pytest.fixture(scope="module", params=AUTOENCODERS)
def autoencoder(request, reference):
    return _open(reference, request.param, "binaryae_ema_1000.th", import_autoencoder)


@pytest.fixture(scope="module", params=DENOISERS)
def denoiser(request, reference):
    return _open(reference, request.param, "bld_ema_1000.th", import_denoiser)


def _one(flips, code_t):
    """P(z_s = 1)."""
    return jnp.exp(jnp.where(code_t, flips.stay, flips.flip))


def _channels_last(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [4, 16, 64, 256])
def test_schedules(reference, name, steps):
    table = {k: v for k, v in np.load(f"{reference}/schedules.npz").items() if k.startswith(f"{name}/{steps}/")}
    alpha = schedule(SCHEDULES[name])(jnp.arange(steps + 1) / steps)
    np.testing.assert_allclose(alpha, table[f"{name}/{steps}/k_final"], atol=1e-6)
    np.testing.assert_allclose((1 - alpha) / 2, table[f"{name}/{steps}/b_final"], atol=1e-6)
    np.testing.assert_allclose(alpha[1:] / alpha[:-1], table[f"{name}/{steps}/beta"][1:], atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("t, s", [(64, 63), (64, 60), (40, 39), (40, 8), (9, 1), (2, 1)])
def test_plugin_posterior(reference, name, t, s):
    case = {k: np.load(f"{reference}/posterior.npz")[f"{name}/{t}-{s}/{k}"] for k in ("p0", "x_t", "posterior")}
    alpha_t, alpha_s = schedule(SCHEDULES[name])(jnp.array([t, s]) / 64)
    code_t, p0 = jnp.asarray(case["x_t"] > 0.5), jnp.asarray(case["p0"])
    flips = jnp.where(code_t, -1, 1) * (jnp.log(p0) - jnp.log1p(-p0))
    found = _one(process.reverse(flips, alpha_t, alpha_s, "plugin"), code_t)
    np.testing.assert_allclose(found, case["posterior"], atol=2e-6)


def test_autoencoder(autoencoder):
    imported, io = autoencoder
    net, variables, images = imported.net, {"params": imported.params}, _channels_last(io["images"])
    features = jax.jit(lambda v, x: net.apply(v, x, method="encode_features"))(variables, images)
    np.testing.assert_allclose(features, _channels_last(io["encoder_features"]), atol=1e-4)

    reconstruction, logits, bits = jax.jit(net.apply)(variables, images)
    p = jax.nn.sigmoid(logits)
    activation = _channels_last(io["activation"])
    np.testing.assert_allclose(2 * p - 1 if net.signed else p, activation, atol=1e-4)
    sure = np.abs(np.asarray(p) - 0.5) > 1e-4
    code = np.asarray(_channels_last(io["code"])) > 0
    assert sure.mean() > 0.99 and np.array_equal(np.asarray(bits)[sure] == 1, code[sure])
    np.testing.assert_allclose(reconstruction, _channels_last(io["reconstruction"]), atol=1e-4)

    decode = jax.jit(lambda v, z: net.apply(v, z, method="decode"))
    images = decode(variables, _channels_last(io["random_code"]) > 0)
    np.testing.assert_allclose(images, _channels_last(io["decoded_random_code"]), atol=1e-4)


def test_code_loss(autoencoder):
    imported, io = autoencoder
    images, net = _channels_last(io["images"]), imported.net
    logits = jax.jit(lambda v, x: net.apply(v, x, method="encode"))({"params": imported.params}, images)
    found = regularizers.official(logits, use_tanh=net.signed).mean()
    np.testing.assert_allclose(found, io["code_loss"], atol=1e-5)


def test_discriminator(autoencoder):
    imported, io = autoencoder
    logits = jax.jit(imported.discriminator.apply)(imported.discriminator_variables, _channels_last(io["images"]))
    np.testing.assert_allclose(logits, _channels_last(io["disc_logits"]), atol=1e-4)


def _apply(imported):
    apply = jax.jit(imported.net.apply)

    def logits(code, t, condition=None, mask=None):
        return apply({"params": imported.params}, code, t, condition, mask).logits[..., 0, :]

    return logits


def _case(imported, io):
    """(code, code_t, t, condition) of the recorded inputs."""
    shape = imported.net.code_shape
    code, code_t = (jnp.asarray(io[k] > 0.5).reshape(-1, *shape) for k in ("x0", "x_t"))
    condition = tiny.condition(jnp.asarray(io["label"]) if "label" in io else None)
    return code, code_t, jnp.asarray(io["t"] / imported.net.total_steps, jnp.float32), condition


def test_denoiser(denoiser):
    imported, io = denoiser
    denoise, (_, code_t, t, condition) = _apply(imported), _case(imported, io)
    np.testing.assert_allclose(denoise(code_t, t, condition).reshape(io["logits"].shape), io["logits"], atol=1e-4)
    if condition is None:
        return
    without = io["logits_unconditional"]
    np.testing.assert_allclose(denoise(code_t, t).reshape(without.shape), without, atol=1e-4)
    # in one batched call, as guidance does it, each example has or has not its condition
    keep = jnp.array([True, False, True])
    mixed = np.where(np.asarray(keep)[:, None, None], io["logits"], without)
    np.testing.assert_allclose(denoise(code_t, t, condition, keep).reshape(without.shape), mixed, atol=1e-4)


def test_forward_process(denoiser):
    imported, io = denoiser
    code, _, t, _ = _case(imported, io)
    alpha = process.per_bit(schedule(imported.schedule)(t), code.ndim)
    p = alpha * code + (1 - alpha) / 2
    np.testing.assert_allclose(p.reshape(io["x0"].shape), io["forward_prob"], atol=1e-6)


def test_losses(denoiser):
    imported, io = denoiser
    code, code_t, t, _ = _case(imported, io)
    recorded = [key.removeprefix("loss/") for key in io if key.startswith("loss/")]
    assert len(recorded) == 16
    for name in recorded:
        final, predicted, focal, auxiliary = name.split("/")
        loss = OfficialLoss(
            schedule=schedule(imported.schedule),
            total_steps=imported.net.total_steps,
            focal=float(focal.removeprefix("focal")),
            weighted=final == "weighted",
            auxiliary=float(auxiliary.removeprefix("aux")),
        )
        logits = jnp.asarray(io["logits"]).reshape(code.shape)
        # the recorded case `x0` reads the same numbers as log-odds of z_0
        flips = jnp.where(code_t, -logits, logits) if predicted == "x0" else logits
        terms = {key: float(value.mean()) for key, value in loss(product(flips), code, code_t, t).items()}
        for ours, theirs in (("loss", "loss"), ("flip_cross_entropy", "bce"), ("flip_accuracy", "acc")):
            np.testing.assert_allclose(terms[ours], io[f"{theirs}/{name}"], atol=1e-5, err_msg=f"{theirs}/{name}")


def test_our_objective_agrees_where_it_should(denoiser):
    imported, io = denoiser
    code, code_t, t, _ = _case(imported, io)
    logits = jnp.asarray(io["logits"]).reshape(code.shape)
    for weighting, name in (("uniform", "focal-1"), ("balanced", "focal0")):
        parametrization = "flip" if weighting == "uniform" else "leave_one_out"
        objective = Objective(
            schedule=schedule(imported.schedule), weighting=weighting, parametrization=parametrization
        )
        ours = objective(product(logits), code, code_t, t)["loss"]
        np.testing.assert_allclose(ours.mean(), io[f"loss/mean/flip/{name}/aux0.0"], atol=1e-5)


def test_trajectory(denoiser):
    imported, io = denoiser
    alpha, steps = schedule(imported.schedule), imported.net.total_steps
    apply, condition = _apply(imported), _case(imported, io)[3]
    weight, temperature = float(io["traj/guidance"]), float(io["traj/temperature"])

    def predict(condition, mask):
        return lambda code, t: product(apply(code, t, condition, mask))

    denoise = predict(condition, None) if np.isnan(weight) else guide(predict, condition, weight, Guidance())
    states = jnp.asarray(io["traj/x"] > 0).reshape(-1, 3, *imported.net.code_shape)
    times = jnp.asarray(io["traj/t"] / steps, jnp.float32)
    assert len(times) == 16 and len(states) == 17
    for i, t in enumerate(times):
        flips = denoise(states[i], jnp.full(3, t)).logits[..., 0, :] / temperature
        if i + 1 < len(times):
            p = _one(process.reverse(flips, alpha(t), alpha(times[i + 1]), "plugin"), states[i])
            np.testing.assert_allclose(p.reshape(io["traj/prob"][i].shape), io["traj/prob"][i], atol=1e-4)
    estimate = np.asarray(jax.nn.sigmoid(jnp.where(states[-2], -flips, flips)))
    sure = np.abs(estimate - 0.5) > 1e-4
    assert np.array_equal((estimate > 0.5)[sure], np.asarray(states[-1])[sure])
