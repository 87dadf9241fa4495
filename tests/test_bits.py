import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import bits


@pytest.mark.parametrize("shape", [(4, 4, 8), (3, 5, 7), (1, 1, 1)])
def test_pack_and_unpack_are_inverse(shape):
    code = jax.random.bernoulli(jax.random.key(0), 0.5, (6, *shape))
    packed = bits.pack(code)
    assert packed.shape == (6, bits.packed_size(shape))
    assert np.array_equal(bits.unpack(packed, shape), code)
    assert np.array_equal(packed, np.packbits(np.asarray(code).reshape(6, -1), axis=-1))


def test_unpack_refuses_another_size():
    with pytest.raises(ValueError, match="16 expected"):
        bits.unpack(jnp.zeros((1, 3), jnp.uint8), (4, 4, 8))


def test_statistics_see_dead_and_repeated_bits():
    rng = np.random.default_rng(0)
    code = rng.random((64, 4, 4, 4)) < 0.5
    code[..., 1] = True  # dead
    code[..., 3] = ~code[..., 2]  # a copy, negated
    values = bits.BitStatistics.from_code(jnp.asarray(code)).compute()
    assert int(values["dead_bits"]) == 1
    np.testing.assert_allclose(values["bit_mean"], code.mean((0, 1, 2)), atol=1e-6)
    correlation = bits.BitStatistics.from_code(jnp.asarray(code)).correlation()
    np.testing.assert_allclose(correlation[2, 3], -1, atol=1e-3)
    expected = np.abs(np.corrcoef(code[..., [0, 2, 3]].reshape(-1, 3).T))
    np.testing.assert_allclose(values["bit_correlation"], (expected.sum() - 3) / 12, atol=1e-3)
    np.testing.assert_allclose(values["bit_entropy"], 0.75, atol=0.01)


def test_statistics_of_parts_merge_and_padding_does_not_count():
    code = jax.random.bernoulli(jax.random.key(0), 0.3, (6, 2, 2, 3))
    whole = bits.BitStatistics.from_code(code)
    padded = jnp.concatenate([code[4:], code[:2]])
    merged = bits.BitStatistics.from_code(code[:4]).merge(
        bits.BitStatistics.from_code(padded, jnp.array([True, True, False, False]))
    )
    jax.tree.map(np.testing.assert_array_equal, whole, merged)
