import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.nets.autoencoder import BinaryAutoencoder, decoder_layers

TINY = {
    "resolution": 16, "channels": 8, "channel_multipliers": (1, 2), "res_blocks": 1, "attention_resolutions": (8,),
    "code_bits": 6, "embedding_width": 12,
}  # fmt: skip


def _init(**options):
    net = BinaryAutoencoder(**{**TINY, **options})
    images = jax.random.uniform(jax.random.key(1), (2, net.resolution, net.resolution, net.image_channels))
    return net, images, jax.jit(net.init)(jax.random.key(0), images)


def _decode(net, variables, code):
    return jax.jit(lambda v, z: net.apply(v, z, method="decode"))(variables, code)


@pytest.mark.parametrize("patch_size", [1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"norm_first": True, "decoder_multiplier": 2.0, "signed": True, "image_channels": 1}]
)
def test_shapes_and_code_follow_the_fields(patch_size, options):
    net, images, variables = _init(patch_size=patch_size, attention_resolutions=(8 // patch_size,), **options)
    noise = jax.random.uniform(jax.random.key(2), (2, *net.code_shape))
    reconstruction, logits, bits = jax.jit(net.apply)(variables, images, noise)
    assert net.code_shape == (8 // patch_size, 8 // patch_size, 6)
    assert reconstruction.shape == images.shape and reconstruction.dtype == jnp.float32
    assert logits.shape == bits.shape == (2, *net.code_shape) and logits.dtype == bits.dtype == jnp.float32
    np.testing.assert_array_equal(bits, (noise < jax.nn.sigmoid(logits)).astype(jnp.float32))


def test_the_code_is_thresholded_without_noise_or_if_deterministic():
    net, images, variables = _init(deterministic=True)
    noise = jnp.zeros((2, *net.code_shape))  # would give all ones
    _, logits, bits = jax.jit(net.apply)(variables, images, noise)
    np.testing.assert_array_equal(bits, (logits > 0).astype(jnp.float32))
    _, _, thresholded = jax.jit(net.apply)(variables, images)
    np.testing.assert_array_equal(bits, thresholded)


def test_the_encoder_learns_through_the_code():
    net, images, variables = _init()
    noise = jax.random.uniform(jax.random.key(2), (2, *net.code_shape))
    gradient = jax.jit(jax.grad(lambda v: jnp.mean((net.apply(v, images, noise)[0] - images) ** 2)))(variables)
    zero = [path for path, g in jax.tree.leaves_with_path(gradient["params"]) if not jnp.any(g)]
    # a key's bias moves all scores of a query alike, so that its gradient is rounding or zero
    assert not [p for p in zero if not (p[-2].key == "key" and p[-1].key == "bias")], zero


def test_bfloat16_computes_the_same_function_from_float32_parameters():
    net, images, variables = _init(channels=32, embedding_width=32)
    half = net.clone(dtype=jnp.bfloat16)
    abstract = jax.eval_shape(half.init, jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract)} == {jnp.dtype(jnp.float32)}
    code = jax.random.bernoulli(jax.random.key(3), 0.5, (2, *net.code_shape))
    full, rounded = (_decode(n, variables, code) for n in (net, half))
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, full, atol=0.05 * float(jnp.std(full)) + 0.02)
    assert jnp.max(jnp.abs(rounded - full)) > 0


def test_larger_tokens_hold_the_same_bits_of_the_same_image():
    net, images, variables = _init()
    large = net.clone(token_size=2)
    assert large.code_shape == (4, 4, 24) and large.downsampling == 2 * net.downsampling
    logits, tokens = (jax.jit(lambda v, n=n: n.apply(v, images, method="encode"))(variables) for n in (net, large))
    np.testing.assert_array_equal(tokens[:, 1, 2, 6:12], logits[:, 2, 5])  # row 0 and column 1 of token (1, 2)
    np.testing.assert_array_equal(_decode(large, variables, tokens > 0), _decode(net, variables, logits > 0))
    with pytest.raises(ValueError, match="token_size 3"):
        net.clone(token_size=3)


def test_patch_size_is_a_rearrangement():
    net, images, variables = _init(patch_size=2, attention_resolutions=())
    features = jax.jit(lambda v: net.apply(v, images, method="encode_features"))(variables)
    kernel = variables["params"]["encoder"]["conv_in"]["kernel"]
    assert kernel.shape == (3, 3, 12, 8) and features.shape == (2, 4, 4, 12)
    last = variables["params"]["decoder"]["conv_out"]
    # a bias only on the last of the four sub-positions lights the odd rows and columns
    last["kernel"] = jnp.zeros_like(last["kernel"])
    last["bias"] = jnp.zeros(12).at[9:].set(1.0)
    lit = _decode(net, variables, jnp.zeros((1, *net.code_shape)))[0, :, :, 0]
    np.testing.assert_array_equal(lit, np.kron(np.ones((8, 8)), [[0, 0], [0, 1]]))


def test_signed_codes_reach_the_decoder_as_plus_minus_one():
    net, _, variables = _init(signed=True)
    plain = net.clone(signed=False)
    code = jax.random.bernoulli(jax.random.key(3), 0.5, (1, *net.code_shape))
    np.testing.assert_allclose(_decode(net, variables, code), _decode(plain, variables, 2.0 * code - 1), atol=1e-6)


def test_the_release_size_has_the_release_layers():
    net = BinaryAutoencoder(resolution=256, code_bits=64, decoder_multiplier=1.0)
    names = [layer.name for layer in decoder_layers(net)]
    assert net.code_shape == (16, 16, 64)
    assert names[-1] == "conv_out" and len(names) == 1 + 3 + 5 * 2 + 2 + 4 + 2


@pytest.mark.parametrize(
    "options, message",
    [
        ({"resolution": 18, "channel_multipliers": (1, 1, 1)}, "resolution 18 is not divisible by 4"),
        ({"attention_resolutions": (7,)}, r"attention_resolutions \[7\].*\[16, 8\]"),
        ({"decoder_multiplier": 0.5}, "decoder_multiplier 0.5"),
        ({"decoder_multiplier": (1.0,)}, "decoder_multiplier has 1 values"),
        ({"code_bits": 0}, "code_bits is 0"),
        ({"channel_multipliers": ()}, "channel_multipliers"),
    ],
)
def test_contradicting_fields_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        BinaryAutoencoder(**{**TINY, **options})


def test_inputs_of_another_size_are_refused():
    net, _, variables = _init()
    with pytest.raises(ValueError, match=r"\(8, 8, 3\).*\(16, 16, 3\)"):
        net.apply(variables, jnp.zeros((1, 8, 8, 3)), method="encode")
    with pytest.raises(ValueError, match=r"\(8, 8, 5\).*\(8, 8, 6\)"):
        net.apply(variables, jnp.zeros((1, 8, 8, 5)), method="decode")
