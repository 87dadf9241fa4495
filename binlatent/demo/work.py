"""What the page's requests make: images, the way to the first of them, and the command that makes the same."""

import dataclasses
import shlex
from collections.abc import Callable
from typing import Any

import numpy as np

from binlatent import config as config_lib
from binlatent.demo.requests import Request, bits_picture, from_url, to_url
from binlatent.editing.complete import inpaint
from binlatent.errors import UserError
from binlatent.pipeline import Pipeline
from binlatent.sampling.conditions import NULL, Conditions, takes_prompts
from binlatent.text.encoder import cut_message

BATCH = 8  # images at a time: progress is reported between them
FRAMES = 9  # of the way from noise

Progress = Callable[[int, int], None]  # (images done, images in all)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    """A model that answers requests, one at a time.

    Attributes:
      workdir: what it was loaded from, for the commands.
    """

    model: Pipeline
    workdir: str

    def facts(self) -> dict[str, Any]:
        """What the page has to know of the model."""
        model, sampling = self.model, self.model.sampling
        return {
            "workdir": self.workdir,
            "resolution": model.autoencoder.net.resolution,
            "code": "×".join(map(str, model.code_shape)),
            "classes": list(model.class_names) or [str(i) for i in range(model.num_classes)],
            "prompts": takes_prompts(model.prior.metadata, config_lib.build_text(model.config)),
            "steps": sampling.steps,
            "guidance": sampling.guidance,
            "temperature": sampling.temperature,
        }

    def make(self, request: Request, progress: Progress) -> dict[str, Any]:
        """Images as data URLs, `film` (of samples), `command`, and `notes` of what had no effect.

        Raises:
          UserError: the request does not fit the model.
        """
        made = getattr(self, f"_{request.kind}")(request, progress)
        images = [to_url(image) for image in made["images"]]
        return {**made, "images": images, "command": self.command(request), "notes": self._notes(request)}

    def picture(self, text: str) -> str:
        """An uploaded picture at the model's size, as a data URL."""
        return to_url(self._image("picture", text))

    def command(self, request: Request) -> str:
        """The command line that makes the same images from the same files."""
        files = {"picture": "picture.png", "second": "second.png", "mask": "mask.png"}
        words = ["binlatent", "sample" if request.kind == "sample" else f"edit {request.kind}"]
        words += ["--workdir", shlex.quote(self.workdir), "--num", request.num, "--seed", request.seed]
        if request.kind == "interpolate":
            words += ["--images", "pictures"]
        elif request.kind != "sample":
            words += ["--images", files["picture"]]
        if request.kind == "inpaint":
            words += ["--mask", files["mask"], "--passes", request.passes]
        if request.kind == "vary":
            words += ["--start", request.strength]
        if request.kind != "interpolate":
            if request.label:
                words += ["--labels" if request.kind == "sample" else "--label", shlex.quote(request.label)]
            for name in ("prompt", "negative_prompt"):
                if text := getattr(request, name):
                    words += [f"--{name}={shlex.quote(' '.join(text.split()))}"]  # with =: it may begin with a dash
            words += ["--steps", request.steps, "--guidance", request.guidance, "--temperature", request.temperature]
        return " ".join(map(str, [*words, "--out", "images"]))

    # --- one of each kind ---

    def _options(self, request: Request) -> dict[str, Any]:
        return {"steps": request.steps, "guidance": request.guidance, "temperature": request.temperature}

    def _conditions(self, request: Request) -> Conditions | None:
        """Of the class and the prompts; None for the null condition. Without a class, samples are of all in turn."""
        label, model = request.label.strip(), self.model
        default = np.arange(model.num_classes) if request.kind == "sample" and model.num_classes else None
        return model.conditions(
            labels=int(label) if label.isascii() and label.isdigit() else label or default,
            prompts=request.prompt or None,
            negative_prompts=request.negative_prompt or None,
        )

    def _notes(self, request: Request) -> list[str]:
        notes, texts = [], [text for text in (request.prompt, request.negative_prompt) if text]
        if texts and (message := cut_message(self.model.text_encoder, texts, "prompts")):
            notes.append(message)
        if request.negative_prompt and not request.guidance:
            notes.append("the negative prompt has no effect where guidance is 0")
        return notes

    def _sample(self, request: Request, progress: Progress) -> dict[str, Any]:
        images, film = [], []
        given = self._conditions(request)
        for start in range(0, request.num, BATCH):
            num = min(BATCH, request.num - start)
            # one shape for all batches: what is compiled for the first serves the rest
            part = next(
                self.model.sample_batches(
                    seed=request.seed, num=BATCH, start=start, labels=NULL, condition=given, trajectory=True,
                    image_dtype="uint8", **self._options(request),
                )
            )  # fmt: skip
            images += list(part.images[:num])
            film = film or self._film(part.states[:, 0])
            progress(len(images), request.num)
        return {"images": images, "film": film}

    def _film(self, states: np.ndarray) -> list[dict[str, Any]]:
        """Some of the states (steps + 1, y, x, k) from noise to the code: their bits, and what they decode to."""
        chosen = np.unique(np.linspace(0, len(states) - 1, FRAMES).round().astype(int))
        decoded = self.model.decode(np.resize(states[chosen], (FRAMES, *states.shape[1:])))
        return [
            {"step": int(step), "bits": to_url(bits_picture(states[step])), "image": to_url(image)}
            for step, image in zip(chosen, decoded[: len(chosen)], strict=True)
        ]

    def _inpaint(self, request: Request, progress: Progress) -> dict[str, Any]:
        picture, mask = self._image("picture", request.picture), self._image("mask", request.mask, channels=1)
        images = np.repeat(picture[None], request.num, axis=0)
        done = inpaint(
            self.model, images, mask[..., 0] > 127, seed=request.seed, passes=request.passes,
            condition=self._conditions(request), **self._options(request),
        )  # fmt: skip
        progress(request.num, request.num)
        return {"images": list(done.images)}

    def _vary(self, request: Request, progress: Progress) -> dict[str, Any]:
        code = self.model.encode(self._image("picture", request.picture)[None])
        codes = self.model.edit(
            np.repeat(code, request.num, axis=0), start=request.strength, seed=request.seed,
            condition=self._conditions(request), **self._options(request),
        )  # fmt: skip
        progress(request.num, request.num)
        return {"images": list(self.model.decode(codes))}

    def _interpolate(self, request: Request, progress: Progress) -> dict[str, Any]:
        pictures = [self._image(name, getattr(request, name)) for name in ("picture", "second")]
        first, second = self.model.encode(np.stack(pictures))
        if request.num < 2:
            raise UserError("an interpolation needs at least 2 images, its two ends")
        codes = self.model.interpolate(first, second, request.num, seed=request.seed)
        progress(request.num, request.num)
        return {"images": list(self.model.decode(codes))}

    def _image(self, name: str, text: str, channels: int | None = None) -> np.ndarray:
        net = self.model.autoencoder.net
        return from_url(name, text, net.resolution, channels or net.image_channels)
