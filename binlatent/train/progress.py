"""What a person sees while a stage trains."""

from typing import Any

from binlatent.console import say, speaks, warn


class Progress:
    """A progress bar with rate and time left, on process 0."""

    def __init__(self, name: str, start: int, num_steps: int):
        import tqdm

        self._bar = tqdm.tqdm(
            total=num_steps, initial=start, desc=name, unit="step", dynamic_ncols=True, mininterval=1.0,
            disable=not speaks(),
        )  # fmt: skip

    def move(self, step: int) -> None:
        """`step` steps have begun altogether."""
        self._bar.update(step - self._bar.n)

    def show(self, values: dict[str, float]) -> None:
        """The loss beside the bar."""
        self._bar.set_postfix_str(f"loss {values['loss']:.4f}", refresh=False)

    def say(self, step: int, values: dict[str, Any], warnings: list[str]) -> None:
        """The scalars of an evaluation and what a person should know about it, above the bar."""
        say(f"step {step}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items() if not isinstance(v, list)))
        for warning in warnings:
            warn(warning)

    def close(self) -> None:
        self._bar.close()
