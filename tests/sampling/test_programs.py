"""The programs of a pipeline with networks whose output is known."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import prng
from binlatent.diffusion import elbo
from binlatent.diffusion.objective import Objective
from binlatent.diffusion.prediction import evidence, product
from binlatent.diffusion.schedule import Linear
from binlatent.sampling import editing, programs
from binlatent.sampling.guidance import Guidance
from binlatent.sampling.sampler import Sampler

OBJECTIVE = Objective(schedule=Linear())
KEYS = prng.per_example(jax.random.key(0), 400)


@dataclasses.dataclass(frozen=True)
class Net:
    """Gives g = params · (1 − 2 z_t), and 0 where the condition is the null: it knows the code of ones, the more the larger
    its parameter is."""

    code_shape: tuple = (1, 1, 4)

    def apply(self, params, z, t, condition=None, condition_mask=None):
        assert z.shape[1:] == self.code_shape
        assert t.shape == z.shape[:1] and t.dtype == jnp.float32
        g = params["params"] * jnp.where(z, -1.0, 1.0)
        if condition is not None:
            g = (
                jnp.where(jnp.ones(len(z), bool) if condition_mask is None else condition_mask, 1, 0)[
                    :, None, None, None
                ]
                * g
            )
        return product(g)


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """Its logits are the image less a half, its picture 1.5 times the first bit less 0.8 times the last; a token is a pixel."""

    code_shape: tuple = (1, 1, 4)
    downsampling: int = 1

    def apply(self, params, x, method):
        if method == "encode":
            return params["params"] * (x - 0.5)
        assert x.shape[1:3] == self.code_shape[:2]
        return 1.5 * x[..., :1].astype(jnp.float32) - 0.1 - 0.8 * x[..., -1:]


def generate(g, *, weight=0.0, temperature=1.0, code=None, known=None, condition=None, guidance=None, **options):
    options = {
        "start": 1.0,
        "trajectory": False,
        "steps": 4,
        "posterior": "mixture",
        "image_dtype": "float32",
    } | options
    sampler = Sampler(schedule=Linear(), steps=options.pop("steps"), posterior=options.pop("posterior"))
    return programs.generate(
        jnp.float32(g), jnp.float32(1), KEYS, condition, jnp.float32(weight), jnp.float32(temperature), code, known,
        net=Net(), objective=OBJECTIVE, autoencoder=Autoencoder(), sampler=sampler, guidance=guidance, clamp="code",
        **options,
    )  # fmt: skip


def share(g):
    return 1 / (1 + np.exp(-g))


def test_codes_are_thresholds_or_draws_of_the_encoder_s_probability():
    images = jnp.full((400, 2, 2, 1), 0.75).at[:, 0, 0].set(0.25)
    net = Autoencoder(code_shape=(2, 2, 1))
    code = programs.encode(jnp.float32(4), images, None, net=net)
    assert code[3].squeeze().tolist() == [[False, True], [True, True]]
    drawn = programs.encode(jnp.float32(4), images, KEYS, net=net)
    np.testing.assert_allclose(drawn[:, 1, 1].mean(), share(1.0), atol=0.06)
    assert not np.array_equal(drawn[:, 0, 1], drawn[:, 1, 1])


def test_pictures_are_within_0_and_1():
    code = jnp.array([[[[True, False]]], [[[False, True]]]])
    assert programs.decode(jnp.float32(1), code, net=Autoencoder()).ravel().tolist() == [1, 0]


def test_canvases_go_through_the_networks_by_windows():
    """The networks refuse all but their own size; of windows that agree, the canvas is what they say."""
    code = jnp.array([[[True, False], [False, True], [True, False]]])[:, None]
    assert programs.decode(jnp.float32(1), code, net=Autoencoder()).ravel().tolist() == [1, 0, 1]
    images = jnp.array([0.75, 0.25, 0.75]).reshape(1, 1, 3, 1)
    assert programs.encode(jnp.float32(4), images, None, net=Autoencoder()).ravel().tolist() == [True, False, True]
    _, codes, states = generate(30.0, code=jnp.zeros((400, 1, 3, 4), bool), trajectory=True)
    assert codes.all() and states.shape == (5, 400, 1, 3, 4)


def test_denoise_gives_calibrated_log_odds():
    code, t = jnp.array([[[[True, False] * 2]], [[[False, True] * 2]]]), jnp.array([0.5, 0.8])
    found = programs.denoise(jnp.float32(2), code, t, None, net=Net(), objective=OBJECTIVE)
    own = np.asarray(evidence(1 - t))[:, None, None, None]
    np.testing.assert_allclose(found, 2 * np.where(code, -1, 1) + own, rtol=1e-5)
    condition, mask = jnp.zeros(2, jnp.int32), jnp.array([True, False])
    found = programs.denoise(jnp.float32(2), code, t, condition, mask, net=Net(), objective=OBJECTIVE)
    kept = np.reshape([2, 0], (2, 1, 1, 1))
    np.testing.assert_allclose(found, kept * np.where(code, -1, 1) + own, rtol=1e-5)


@pytest.mark.parametrize("posterior", ["mixture", "plugin"])
def test_bits_are_as_likely_as_the_network_says(posterior):
    images, codes, states = generate(0.7, posterior=posterior)
    np.testing.assert_allclose(codes.mean(), share(0.7), atol=0.04)
    expected = np.clip(1.5 * codes[..., 0] - 0.1 - 0.8 * codes[..., -1], 0, 1)
    np.testing.assert_allclose(images[..., 0], expected, rtol=1e-6)
    assert states is None
    sharper = generate(0.7, posterior=posterior, temperature=0.5)[1]
    np.testing.assert_allclose(sharper.mean(), share(1.4), atol=0.04)


def test_guidance_extrapolates_from_the_null():
    condition = jnp.zeros(400, jnp.int32)
    plain = generate(0.7, condition=condition)[1]
    guided = generate(0.7, condition=condition, weight=1.0, guidance=Guidance())[1]
    np.testing.assert_allclose([plain.mean(), guided.mean()], [share(0.7), share(1.4)], atol=0.04)
    assert np.array_equal(generate(0.7, condition=condition, weight=0.0, guidance=Guidance())[1], plain)


@jax.debug_key_reuse(False)
def test_outside_its_interval_guidance_is_not_computed(monkeypatch):
    """The codes are those of a guidance that computes both branches at every step."""
    condition, rows = jnp.zeros(400, jnp.int32), []

    class Counting(Net):
        def apply(self, params, z, *given):
            rows.append(len(z))
            return super().apply(params, z, *given)

    monkeypatch.setattr(sys.modules[__name__], "Net", Counting)
    options = {"condition": condition, "weight": 1.0, "guidance": Guidance(interval=(0.3, 0.8)), "trajectory": True}
    found = generate(0.7, **options)[2]  # times 1, 0.75, 0.5, 0.25
    assert rows == [400, 800, 400]

    class Always(Guidance):
        """Both branches at every step, with a weight of 0 outside the interval."""

        def acts(self, t):
            return True

        def weight_at(self, weight, t):
            return Guidance(interval=self.interval).weight_at(weight, t)

    assert np.array_equal(generate(0.7, **options | {"guidance": Always(interval=(0.3, 0.8))})[2], found)
    assert rows[3:] == [800]
    assert not np.array_equal(generate(0.7, **options | {"guidance": Guidance()})[2], found)


@jax.debug_key_reuse(False)
def test_conditions_are_embedded_once_and_not_at_every_step(monkeypatch):
    condition, embedded = jnp.zeros(400, jnp.int32), []

    class Embedding(Net):
        def embed_condition(self):
            """Its presence is asked for."""

        def apply(self, params, *given, method=None):
            if method == "embed_condition":
                embedded.append(len(given[0]))
                return dict(zip(("condition", "condition_mask"), given, strict=True))
            z, t, both, mask = given
            assert mask is None
            return super().apply(params, z, t, **both)

    options = {"condition": condition, "weight": 1.0, "guidance": Guidance(interval=(0.3, 0.8)), "trajectory": True}
    expected = generate(0.7, **options)[2]
    monkeypatch.setattr(sys.modules[__name__], "Net", Embedding)
    assert np.array_equal(generate(0.7, **options)[2], expected)
    assert embedded == [400, 800]


def test_trajectories_types_and_starts():
    images, codes, states = generate(30.0, trajectory=True, image_dtype="uint8")
    assert states.shape == (5, 400, 1, 1, 4) and np.array_equal(states[-1], codes)
    np.testing.assert_allclose(states[0].mean(), 0.5, atol=0.05)
    assert images.dtype == jnp.uint8 and (np.asarray(images) == 0.6 * 255).all()


@jax.debug_key_reuse(False)
def test_an_edit_begins_at_its_time():
    code = jnp.zeros((400, 1, 1, 4), bool)
    states = generate(0.7, code=code, start=0.4, trajectory=True)[2]
    np.testing.assert_allclose(states[0].mean(), 0.2, atol=0.04)  # half of the 40 % that are replaced
    begin = editing.noised(prng.fold(KEYS, 4), code, jnp.float32(0.6))

    def predict(z, t):
        return OBJECTIVE.calibrate(Net().apply({"params": 0.7}, z, t), t)

    sampler = Sampler(schedule=Linear(), steps=4)
    assert np.array_equal(states, sampler(predict, KEYS, begin, start=0.4, trajectory=True)[1])


def test_known_bits_are_held():
    code = jnp.zeros((400, 1, 1, 4), bool)
    known = jnp.broadcast_to(jnp.array([True, True, False, False]), code.shape)
    found = generate(30.0, code=code, known=known)[1]
    assert not found[..., :2].any() and found[..., 2:].all()


def test_the_bound_is_of_the_calibrated_estimate():
    code = jnp.ones((400, 1, 1, 4), bool)
    found = programs.negative_elbo(jnp.float32(0.7), code, KEYS, None, net=Net(), objective=OBJECTIVE, steps=8)

    def predict(z, t):
        return OBJECTIVE.calibrate(Net().apply({"params": 0.7}, z, t), t)

    expected = elbo.negative_elbo(predict, KEYS, code, schedule=Linear(), steps=8)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
