"""What a person sees while a stage trains."""

from typing import Any

import jax


class Progress:
    """A progress bar with rate and time left, on process 0."""

    def __init__(self, name: str, start: int, num_steps: int):
        import tqdm

        self._bar = tqdm.tqdm(
            total=num_steps, initial=start, desc=name, unit="step", dynamic_ncols=True, mininterval=1.0,
            disable=jax.process_index() != 0,
        )  # fmt: skip

    def move(self, step: int) -> None:
        self._bar.update(step - self._bar.n)

    def show(self, step: int, values: dict[str, float]) -> None:
        self._bar.set_postfix_str(f"loss {values['loss']:.4f}", refresh=False)

    def say(self, step: int, values: dict[str, Any], warnings: list[str]) -> None:
        scalars = (f"{name} {value:.4g}" for name, value in values.items() if not isinstance(value, list))
        if not self._bar.disable:
            self._bar.write(f"step {step}: " + ", ".join(scalars))
            for warning in warnings:
                self._bar.write(f"warning: {warning}")

    def close(self) -> None:
        self._bar.close()
