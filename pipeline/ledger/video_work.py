"""One video on its way through a run."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.items.item import Item, Probed, Receipt
from pipeline.ledger.plan import Todo
from pipeline.types import Source, Target


@dataclass(eq=False)
class VideoWork:
    """What is known of a video between being taken up and being committed."""

    listed: dict[str, Any]
    todo: Todo
    probed: Probed | None = None
    before: dict[str, Any] | None = None  # its row of the ledger, for work on stored clips
    stored: tuple[pa.Table, pa.Table] | None = None  # its rows of clips and segments, for the same
    items: list[Item] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    asked: list[Item] = field(default_factory=list)  # questions on the whole of it
    answers: list[Receipt] = field(default_factory=list)

    @property
    def source(self) -> Source:
        return Source(*(self.listed[name] for name in ("video_id", "uri", "path", "version")))

    @property
    def of_items(self) -> list[Target]:
        """What its items are asked for."""
        return [target for target in self.todo.targets if not target.asks_video]

    @property
    def of_video(self) -> list[Target]:
        """Questions on the whole of it."""
        return [target for target in self.todo.targets if target.asks_video]

    @property
    def is_failed(self) -> bool:
        """Whether it ends without any rows of this run."""
        if self.probed is not None and self.probed.failure is not None:
            return True
        return bool(self.receipts) and not any(receipt.is_staged for receipt in self.receipts)
