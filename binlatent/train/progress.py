"""The progress bar and messages of a stage in training."""

from typing import Any

from binlatent.console import say, speaks, warn


class Progress:
    """A progress bar with rate and remaining time, on process 0."""

    def __init__(self, name: str, start: int, num_steps: int):
        import tqdm

        self._bar = tqdm.tqdm(
            total=num_steps, initial=start, desc=name, unit="step", dynamic_ncols=True, mininterval=1.0,
            disable=not speaks(),
        )  # fmt: skip

    def move(self, step: int) -> None:
        """Moves the bar to `step`."""
        self._bar.update(step - self._bar.n)

    def show(self, values: dict[str, float]) -> None:
        """Shows the loss beside the bar."""
        self._bar.set_postfix_str(f"loss {values['loss']:.4f}", refresh=False)

    def say(self, step: int, values: dict[str, Any], warnings: list[str]) -> None:
        """Prints the scalars and warnings of an evaluation above the bar."""
        say(f"step {step}: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items() if not isinstance(v, list)))
        for warning in warnings:
            warn(warning)

    def close(self) -> None:
        self._bar.close()
