import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent import prng
from binlatent.errors import UserError


def data(key):
    return np.asarray(jax.random.key_data(key)).tolist()


def test_streams_steps_and_examples_differ():
    key = prng.root(0)
    keys = [prng.stream(key, name, step) for name in prng.STREAMS for step in range(3)]
    assert len({tuple(data(k)) for k in keys}) == len(keys)


@jax.debug_key_reuse(False)
def test_keys_are_what_they_were():
    """What is drawn must not change from version to version: a resumed run would go on with other noise."""
    assert prng.STREAMS[:8] == ("init", "train", "evaluate", "encode", "sample", "preview", "likelihood", "edit")
    key = jax.random.key(7)
    assert data(prng.root(7)) == data(key)
    folded = jax.random.fold_in(jax.random.fold_in(key, 1), 3)
    assert data(prng.stream(key, "train", 3)) == data(folded)
    assert data(prng.stream(key, "train")) == data(jax.random.fold_in(jax.random.fold_in(key, 1), 0))
    keys = prng.per_example(key, 3, 5)
    assert data(keys) == [data(jax.random.fold_in(key, i)) for i in (5, 6, 7)]
    assert data(prng.per_example(key, 1)) == [data(jax.random.fold_in(key, 0))]
    assert data(prng.fold(keys, 9)) == [data(jax.random.fold_in(k, 9)) for k in keys]
    assert np.array_equal(prng.uniform(keys, (2, 3))[1], jax.random.uniform(keys[1], (2, 3)))


@jax.debug_key_reuse(False)
def test_an_examples_draws_do_not_depend_on_the_batch():
    key = prng.root(0)
    whole = prng.uniform(prng.per_example(key, 8), (3,))
    part = prng.uniform(prng.per_example(key, 2, 5), (3,))
    assert np.array_equal(whole[5:7], part)
    for start in (2**32 - 1, jnp.uint32(2**32 - 1)):  # beyond int32
        assert data(prng.per_example(key, 1, start)) == [data(jax.random.fold_in(key, 2**32 - 1))]


@pytest.mark.parametrize("seed", [0, 2**32 - 1, np.uint32(2**32 - 1), np.int64(2**32 - 1)])
def test_seeds(seed):
    assert data(prng.root(seed)) == data(jax.random.key(int(seed)))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, "1", None])
def test_what_is_no_seed(seed):
    with pytest.raises(UserError, match="an integer from 0 to 4294967295 is expected"):
        prng.check_seed(seed)
    if isinstance(seed, int):
        with pytest.raises(UserError, match="is expected"):
            prng.root(seed)


def test_unknown_stream():
    with pytest.raises(ValueError, match=r"'dropout'.*train"):
        prng.stream(prng.root(0), "dropout")
