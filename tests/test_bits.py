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


def test_signs():
    found = bits.signs(jnp.array([True, False]))
    assert found.tolist() == [1, -1]
    assert found.dtype == jnp.float32
    assert bits.signs(jnp.array([True]), jnp.bfloat16).dtype == jnp.bfloat16


def test_entropy_is_in_bits():
    p = jnp.array([0.0, 0.25, 0.5, 1.0])
    np.testing.assert_allclose(bits.entropy(p), [0, 0.811278, 1, 0], rtol=1e-5)


def test_counts_of_a_small_window_by_hand():
    """Two codes of two tokens of three bits: always 1, never 1, and every other."""
    code = jnp.array([[[[True, False, True], [True, False, False]]], [[[True, False, True], [True, False, False]]]])
    found = bits.BitStatistics.from_code(code)
    assert float(found.tokens) == 4
    assert found.ones.tolist() == [4, 0, 2]
    assert found.pairs.tolist() == [[4, 0, 2], [0, 0, 0], [2, 0, 2]]
    assert found.mean.tolist() == [1, 0, 0.5]
    assert found.correlation().tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]  # 0 where a bit never changes
    values = found.compute()
    assert (int(values["dead_bits"]), int(values["repeated_bits"])) == (2, 0)
    np.testing.assert_allclose(values["bit_entropy"], 1 / 3, atol=1e-6)
    assert float(values["bit_correlation"]) == 0
    assert bits.BitStatistics.from_code(code, jnp.array([True, False])).ones.tolist() == [2, 0, 1]


def test_correlation_and_repeated_bits():
    """Tokens 0 … 35: a bit, a copy of it, its negation, one that agrees in 35 of 36, and one that is independent of it."""
    i = np.arange(36)
    first = i % 2 == 0
    columns = np.stack([first, first, ~first, first ^ (i == 0), i % 4 < 2], -1)
    found = bits.BitStatistics.from_code(jnp.asarray(columns.reshape(2, 3, 6, 5)))
    expected = np.corrcoef(columns.T)
    np.testing.assert_allclose(found.correlation(), expected, atol=1e-5)
    assert 0.94 < expected[0, 3] < 0.95
    values = found.compute()
    assert int(values["repeated_bits"]) == 2
    np.testing.assert_allclose(values["bit_correlation"], (np.abs(expected).sum() - 5) / 20, atol=1e-5)
    one = bits.BitStatistics.from_code(jnp.asarray(columns[:, :1].reshape(2, 3, 6, 1))).compute()
    assert float(one["bit_correlation"]) == 0 and int(one["repeated_bits"]) == 0
