"""What the rest of the library asks of a family of Video LLMs.

Legend: n steps (see `adatp.visual`), c visual tokens of a step, d hidden size of the LLM, L rows of a prompt.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor

from adatp.layout import Slot
from adatp.visual import Visual
from adatp.weights import Checkpoint


class ModelFamily(Protocol):
    """A loaded checkpoint of one family: a frozen value around an unmodified transformers model.

    Attributes:
        name: how messages name the family, with the `model_type` or key of config.json that tells it.
        system: the system turn of the prompt; None: whatever the chat template writes by itself.
        video_text: what the chat template writes for a video; None: the token `video_token_id` alone.
        chat_template: the template that writes a video's prompt; None: the checkpoint's own, or qwen_1_5.
        can_rank: whether the tower has the attention VisionZip ranks by.
        deepstack_layers: decoder layers to whose output the tower adds features.
        hf: the transformers model, in evaluation mode.
    """

    name: ClassVar[str]
    system: ClassVar[str | None]
    video_text: ClassVar[str | None]
    chat_template: ClassVar[str | None]
    can_rank: ClassVar[bool]

    @property
    def hf(self) -> Any: ...

    @property
    def deepstack_layers(self) -> int: ...

    @classmethod
    def reads(cls, config: dict[str, Any]) -> bool:
        """Whether config.json is one of this family's."""
        ...

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> Self:
        """Raises CheckpointError for a setting whose arithmetic this library does not do, naming it."""
        ...

    @property
    def decoder(self) -> Any:
        """The module with `embed_tokens`, `layers`, `norm` and `rotary_emb`; see `adatp.decoder` for its layers."""
        ...

    @property
    def video_token_id(self) -> int:
        """Id that stands for a visual token in a prompt."""
        ...

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """(H, W) in pixels that the tower wants; None where it follows the picture's own shape."""
        ...

    @property
    def tokens_per_frame(self) -> int | None:
        """c; None where it follows the picture's size."""
        ...

    @property
    def vector(self) -> Tensor | None:
        """What stands at Slot.VECTOR, (d,)."""
        ...

    def encode(self, pixels: Tensor, times_s: Sequence[float] | None, ranking: bool) -> Visual:
        """Normalised pixels (n frames, 3, H, W) on the model's device and in its dtype -> visual tokens.

        `ranking` asks for `Visual.ranking`; only where `can_rank`. Raises ValueError for a size it cannot take, and
        where it needs the frames' times and has none.
        """
        ...

    def spell(self, n_steps: int, times_s: Sequence[Sequence[float]] | None) -> list[str | Slot]:
        """What stands in the prompt for the video: text before, between and after its steps, control tokens spelled."""
        ...

    def positions(
        self, n_rows: int, visual: Tensor, grid: tuple[int, int], times_s: Sequence[Sequence[float]] | None
    ) -> Tensor:
        """Position of every row, (1, L) or (3, L), on the CPU. visual: rows of each step's tokens, (n, c)."""
        ...

    def vision_flops(self, n_steps: int, grid: tuple[int, int]) -> float:
        """FLOPs of the tower and the projector over `n_steps` steps of `grid` patch tokens."""
        ...
