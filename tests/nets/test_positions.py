import jax
import jax.numpy as jnp
import numpy as np
import pytest

from binlatent.nets.positions import grid_positions, rotary_angles, rotate


def test_every_token_has_a_position_of_its_own():
    for positions in (grid_positions(3, 2, 16), rotary_angles(3, 2, 8)):
        assert len({tuple(np.round(np.asarray(p), 5)) for p in positions}) == 6


def test_positions_are_row_by_row():
    angles = np.asarray(rotary_angles(3, 2, 8))
    assert angles.shape == (6, 4)
    rows, columns = angles[:, 0], angles[:, 2]  # the highest frequency is 1 radian a token
    assert rows.tolist() == [0, 0, 1, 1, 2, 2] and columns.tolist() == [0, 1, 0, 1, 0, 1]
    np.testing.assert_allclose(grid_positions(3, 2, 16)[:, 0], np.sin(rows), atol=1e-6)
    np.testing.assert_allclose(grid_positions(3, 2, 16)[:, 8], np.sin(columns), atol=1e-6)


@pytest.mark.parametrize(("other", "equal"), [((1, 1), True), ((2, 3), True), ((0, 1), False), ((1, 0), False)])
def test_scores_of_rotated_queries_and_keys_depend_on_the_offset_alone(other, equal):
    """The score of tokens (0, 0) and (2, 1) of a 6 × 6 grid is that of any two tokens with the same offset."""
    query, key = (jax.random.normal(jax.random.key(i), (1, 1, 1, 8)) for i in range(2))
    query, key = (rotate(jnp.repeat(x, 36, 1), rotary_angles(6, 6, 8))[0, :, 0].reshape(6, 6, 8) for x in (query, key))
    np.testing.assert_allclose(
        jnp.linalg.norm(query, axis=-1), jnp.linalg.norm(query[0, 0]) * jnp.ones((6, 6)), rtol=1e-5
    )
    row, column = other
    end = (row + 2, column + 1) if equal else (2, 1)
    scores = [float(query[a] @ key[b]) for a, b in (((0, 0), (2, 1)), (other, end))]
    assert (abs(scores[0] - scores[1]) < 1e-5) == equal
