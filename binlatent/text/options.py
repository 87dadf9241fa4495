"""The `text` section of a config. Importing it does not import JAX."""

import dataclasses

from binlatent.errors import UserError

USES = ("tokens", "pooled")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How captions are read, where the data have some.

    Attributes:
      encoder: `own`: words by number, read by a small text tower that is trained with the prior. `clip:NAME` or `t5:NAME`:
        a pretrained encoder (extra `text`), a name at Hugging Face or a local folder. `FILE.py:FUNCTION`: one of your own.
      length: most tokens of a caption; longer ones are cut.
      words: most words that `own` knows by number; it spells others in bytes.
      use: what the prior is given by an encoder that is not `own`: its `tokens` and its pooled vector, or only that
        (`pooled`).
      prompts: sentences that the previews of training show; empty: captions of the first validation images.
    """

    encoder: str = "own"
    length: int = 64
    words: int = 8192
    use: str = "tokens"
    prompts: tuple[str, ...] = ()

    def __post_init__(self):
        if self.length < 1:
            raise UserError(f"text.length is {self.length}: at least 1 token is expected")
        if not 0 <= self.words <= 65_000:
            raise UserError(f"text.words is {self.words}: a number from 0 to 65000 is expected")
        if self.use not in USES:
            raise UserError(f"text.use is {self.use!r}: {' or '.join(USES)} is expected")
        kind, _, rest = self.encoder.partition(":")
        if self.encoder != "own" and not (rest and (kind in ("clip", "t5") or kind.endswith(".py"))):
            raise UserError(
                f"text.encoder is {self.encoder!r}: own, clip:NAME, t5:NAME or FILE.py:FUNCTION is expected"
            )
