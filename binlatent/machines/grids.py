"""Whether a time grid that is fitted to the likelihood pays: its bound and the scores of its samples, beside equal steps.

    python -m binlatent.machines.grids runs/digits --steps 2,4,8,16

One call of the denoiser at t gives the cost of the reverse step to every s < t, so that as many calls as there are ticks fill
a table of costs, and dynamic programming finds the cheapest grid of any number of steps (Watson et al., 2021, arXiv
2106.03802). The table is of the validation codes. Samples are scored where the data are the digits. `docs/few_steps.md` has
what came of it.
"""

import argparse
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from binlatent import prng
from binlatent.console import numbers, say, script
from binlatent.data.transforms import named_condition
from binlatent.diffusion import process
from binlatent.diffusion.schedule import Schedule
from binlatent.experiment import Experiment
from binlatent.machines import digits
from binlatent.machines.prior_ablation import validation_codes
from binlatent.nets.condition import Condition
from binlatent.pipeline import Pipeline
from binlatent.sampling import programs
from binlatent.typing import Array, Bool, Denoise, Float, Key

SAMPLE_SEED = 7  # as in `machines.digits`


def step_costs(
    denoise: Denoise, keys: Key[Array, "b"], code: Bool[Array, "b *bits"], *, schedule: Schedule, ticks: int
) -> Float[Array, "n n"]:
    """What each possible reverse step costs, bits a code: entry (i, j) is KL(q(z_s | z_t, z_0) ‖ p(z_s | z_t)) at
    t = i/ticks, s = j/ticks for j < i, and ∞ elsewhere. The bound of a grid is the sum of its steps.

    The dependence between the bits of a token is estimated at one draw of z_s, with the same uniform draws for all s.

    Args:
      denoise: (z_t, t) → flip log-odds f.
      keys: one key an example.
      code: bits (b, …).
      ticks: how many equal parts [0, 1] has, a static number.
    """

    def begin(i):
        t, step_keys = jnp.full(code.shape[:1], i / ticks), prng.fold(keys, i)
        noise, uniform = (prng.uniform(prng.fold(step_keys, n), code.shape[1:]) for n in range(2))
        code_t = process.corrupt(noise, code, schedule(t))
        prediction = denoise(code_t, t)

        def end(j):
            nats = process.divergence(prediction, code ^ code_t, uniform, schedule(t), schedule(j / ticks))
            return nats.sum() / code.shape[0] / jnp.log(2.0)

        impossible = jnp.float32(jnp.inf)
        return jax.lax.map(lambda j: jax.lax.cond(j < i, end, lambda _: impossible, j), jnp.arange(ticks + 1))

    costs = jax.lax.map(begin, jnp.arange(1, ticks + 1))
    return jnp.concatenate([jnp.full_like(costs[:1], jnp.inf), costs])


def cheapest_grids(costs: np.ndarray, most: int) -> list[tuple[float, ...]]:
    """For every number of steps K = 1 … `most` the cheapest K + 1 falling times from 1 to 0, by dynamic programming.

    Args:
      costs: (n + 1, n + 1), of the step from i/n to j/n in entry (i, j).
      most: at most n.
    """
    n = len(costs) - 1
    best, first = np.full(n + 1, np.inf), []  # cheapest way from i/n to 0 in k steps, and where its first step goes
    best[0], grids = 0.0, []
    for _ in range(most):
        total = costs + best[None]
        first.append(total.argmin(1))
        best, place, times = total.min(1), n, [1.0]
        for to in reversed(first):
            place = int(to[place])
            times.append(place / n)
        grids.append(tuple(times))
    return grids


def cost(costs: np.ndarray, times: tuple[float, ...]) -> float:
    """The bound of a grid whose times are ticks."""
    places = [round(t * (len(costs) - 1)) for t in times]
    return float(sum(costs[i, j] for i, j in itertools.pairwise(places)))


def validation_costs(experiment: Experiment, model: Pipeline, ticks: int) -> np.ndarray:
    """`step_costs` of `validation_codes`, bits a latent bit."""
    code, records = validation_codes(experiment, model.code_shape)
    parts = [named_condition(record) for record in records]
    names = [name for name in ("label", "vector", "tokens") if name in parts[0]]
    condition = Condition.of({name: np.stack([part[name] for part in parts]) for name in names})

    def table(params, keys, code, condition):
        def denoise(z, t):
            return model.objective.calibrate(model.prior.net.apply({"params": params}, z, t, condition), t)

        return step_costs(denoise, keys, code, schedule=model.objective.schedule, ticks=ticks)

    keys = prng.per_example(prng.stream(prng.root(0), "likelihood"), len(code))
    return np.asarray(jax.jit(table)(model.prior.params, keys, jnp.asarray(code), condition)) / code[0].size


def score(experiment: Experiment, model: Pipeline, times: tuple[float, ...], num: int) -> dict[str, float]:
    """The scores of `num` digits, sampled over a grid."""
    equal = model.options(steps=len(times) - 1).sampler(model.objective.schedule)
    sampler, images = dataclasses.replace(equal, times=times), []
    key = prng.stream(prng.root(SAMPLE_SEED), "sample")
    for start in range(0, num, model.batch_size):
        count = min(model.batch_size, num - start)
        made, _, _ = programs.generate(
            model.prior.params, model.autoencoder.params, prng.per_example(key, count, jnp.uint32(start)),
            Condition(label=jnp.arange(start, start + count, dtype=jnp.int32) % model.num_classes),
            jnp.float32(0), jnp.float32(1), None, None,
            net=model.prior.net, objective=model.objective, autoencoder=model.autoencoder.net, sampler=sampler,
            guidance=None, clamp="noised", start=1.0, trajectory=False,
        )  # fmt: skip
        images.append(np.asarray(made))
    return digits.score_images(experiment, np.concatenate(images))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir")
    parser.add_argument(
        "--steps", type=numbers, default="2,4,8,16", help="they divide the ticks (default: %(default)s)"
    )
    parser.add_argument("--ticks", type=int, default=64, help="possible times of a grid (default: %(default)s)")
    parser.add_argument("--num", type=int, default=1000, help="samples of a score (default: %(default)s)")
    args = parser.parse_args(argv)
    experiment, model = Experiment.open(args.workdir), Pipeline.load(args.workdir, batch_size=250)
    costs, scored = validation_costs(experiment, model, args.ticks), experiment.config.data.source == "digits"
    fitted, columns = cheapest_grids(costs, args.ticks), digits.COLUMNS if scored else ()
    say("| steps | times | " + " | ".join(("bits per bit", *columns)) + " |\n" + "|---" * (3 + len(columns)) + "|")
    for steps in args.steps:
        equal = tuple(float(t) for t in np.linspace(1, 0, steps + 1))
        for name, times in (("equal", equal), ("fitted", fitted[steps - 1])):
            found = score(experiment, model, times, args.num) if scored else {}
            values = [f"{cost(costs, times):.4f}", *(f"{found[column]:.3f}" for column in columns)]
            say(f"| {steps} | {name} | " + " | ".join(values) + " |")


if __name__ == "__main__":
    script(main)
