"""The prompt around a clip: header, visual placeholders, text (METHOD 3.1 and 3.2).

The checkpoint's own chat template writes it, with the system turn the LLaVA prompt has; without a template the qwen_1_5
form of ChatML does. User text is tokenised as plain text: control tokens exist only where the template put them.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from adatp.layout import Slot

SYSTEM = "You are a helpful assistant."
NO_VIDEO_TOKEN = -200  # id that stands for the video where the tokenizer has no token for it (lmms-lab's convention)
_TEXT = "\uf8ffTEXT\uf8ff"  # private-use characters no template writes
_VIDEO = "\uf8ffVIDEO\uf8ff"
_QWEN_1_5 = (
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{_VIDEO}\n{_TEXT}<|im_end|>\n<|im_start|>assistant\n"
)


@dataclass(frozen=True)
class Prompt:
    """Turns a user's text into token ids with one placeholder for the video."""

    tokenizer: Any
    rendered: str
    """The template's output for the sentinels _VIDEO and _TEXT, each exactly once."""
    video_token_id: int

    def __post_init__(self) -> None:
        if self.rendered.count(_VIDEO) != 1 or self.rendered.count(_TEXT) != 1:
            raise ValueError(
                "expected a chat template that writes the video and the text once each, "
                f"got {self.rendered.count(_VIDEO)} videos and {self.rendered.count(_TEXT)} texts"
            )

    def ids(self, text: str) -> list[int]:
        """Token ids of the whole prompt; `video_token_id` stands once, for all of the clip."""
        return [self.video_token_id if isinstance(t, Slot) else t for t in self.tokens(text, [Slot.STEP])[0]]

    def tokens(self, text: str, video: Sequence[str | Slot]) -> tuple[list[int | Slot], int]:
        """The whole prompt with `video` where the video stands, and how many tokens at its end are the text after it.

        Text of `video` is tokenised together with its neighbours, control tokens in it are control tokens.
        """
        before, after = self.rendered.split(_VIDEO)
        tokens: list[int | Slot] = []
        for run in _joined([before, *video, after]):
            if isinstance(run, Slot):
                tokens.append(run)
                continue
            for piece in self._pieces(run):
                if _TEXT in piece:
                    tokens += self.plain_ids(piece.replace(_TEXT, text))
                else:
                    tokens += self.tokenizer(piece, add_special_tokens=False).input_ids
        last = max(i for i, token in enumerate(tokens) if isinstance(token, Slot))
        return tokens, len(tokens) - 1 - last - self._n_closing(video[-1])

    def _n_closing(self, closing: str | Slot) -> int:
        """Tokens up to the last control token of what closes the video; text after that belongs to the text."""
        pieces = self._pieces(closing) if isinstance(closing, str) else []
        ends = [i + 1 for i, piece in enumerate(pieces) if piece in self.tokenizer.get_added_vocab()]
        closed = pieces[: max(ends, default=0)]
        return sum(len(self.tokenizer(piece, add_special_tokens=False).input_ids) for piece in closed)

    def answer_ids(self, text: str) -> list[int]:
        """Token ids of an answer, as it would follow the prompt."""
        ids = self.plain_ids(text)
        if not ids:
            raise ValueError(f"expected an answer of at least one token, got {text!r}")
        return ids

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of text that holds no control token; refused where the tokenizer makes one all the same."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        added = self.tokenizer.added_tokens_decoder
        control = {i for i, token in added.items() if token.special} | {self.video_token_id}
        if found := control.intersection(ids) - {self.tokenizer.unk_token_id}:
            names = sorted(str(added.get(i, i)) for i in found)
            raise ValueError(f"the text reads as control tokens {names}, expected plain text, got {text!r}")
        return ids

    def _pieces(self, text: str) -> list[str]:
        """`text` cut at its control tokens."""
        controls = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        if not controls:
            return [text]
        return [piece for piece in re.split("(" + "|".join(map(re.escape, controls)) + ")", text) if piece]


def _joined(runs: Sequence[str | Slot]) -> list[str | Slot]:
    """`runs` with neighbouring strings made one."""
    joined: list[str | Slot] = []
    for run in runs:
        if joined and isinstance(run, str) and isinstance(joined[-1], str):
            joined[-1] += run
        else:
            joined.append(run)
    return joined


def load_prompt(
    folder: Path,
    tokenizer: Any,
    video_token_id: int,
    system: str | None = SYSTEM,
    video_text: str | None = None,
    template: str | None = None,
) -> Prompt:
    """The prompt of the checkpoint in `folder`: `template`, else its own chat template, else qwen_1_5."""
    if template is None:
        template = _chat_template(folder, tokenizer)
    return prompt_for(tokenizer, template, video_token_id, system, video_text)


def prompt_for(
    tokenizer: Any,
    template: str | None,
    video_token_id: int,
    system: str | None = SYSTEM,
    video_text: str | None = None,
) -> Prompt:
    """The prompt that `template` writes; None writes qwen_1_5.

    Args:
        system: text of the system turn; None leaves that turn to the template.
        video_text: what the template writes for a video; None: the token of `video_token_id`.
    """
    has_token = 0 <= video_token_id < len(tokenizer)
    if video_text is None:
        video_text = tokenizer.convert_ids_to_tokens(video_token_id) if has_token else _VIDEO
    if template is None and system != SYSTEM:
        raise ValueError("expected a chat template in the checkpoint's tokenizer or chat_template.json, got none")
    rendered = _QWEN_1_5 if template is None else _render(tokenizer, template, system, video_text)
    return Prompt(tokenizer, rendered, video_token_id if has_token else NO_VIDEO_TOKEN)


def _chat_template(folder: Path, tokenizer: Any) -> str | None:
    """The multimodal template of a processor goes before the tokenizer's own."""
    of_processor = folder / "chat_template.json"
    if of_processor.exists():
        return str(json.loads(of_processor.read_text())["chat_template"])
    template: str | None = tokenizer.chat_template
    return template


def _render(tokenizer: Any, template: str, system: str | None, video_text: str) -> str:
    """Render with content as parts (multimodal templates); where the template wants strings, with one string."""
    parts = ([{"type": "text", "text": system}], [{"type": "video"}, {"type": "text", "text": _TEXT}])
    strings = (system, f"{video_text}\n{_TEXT}")
    for of_system, of_user in (parts, strings):
        turns: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": of_system}]
        turns.append({"role": "user", "content": of_user})
        try:
            rendered: str = tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except (jinja2.TemplateError, TypeError):  # the template concatenates content as a string
            continue
        if rendered.count(video_text) == 1 and rendered.count(_TEXT) == 1 and "{'type'" not in rendered:
            return rendered.replace(video_text, _VIDEO)
    raise ValueError(f"expected a chat template that writes {video_text!r} and the user's text once, got {template!r}")
