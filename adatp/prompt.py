"""The prompt around a clip: header, visual placeholders, text (METHOD 3.1 and 3.2).

The checkpoint's own chat template writes it, with the system turn the LLaVA prompt has; without a template the qwen_1_5
form of ChatML does. User text is tokenised as plain text: control tokens exist only where the template put them.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

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
        ids: list[int] = []
        for piece in self._pieces():
            if piece == _VIDEO:
                ids.append(self.video_token_id)
            elif _TEXT in piece:
                ids += self.plain_ids(piece.replace(_TEXT, text))
            else:
                ids += self.tokenizer(piece, add_special_tokens=False).input_ids
        return ids

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

    def _pieces(self) -> list[str]:
        """The rendered template cut at its control tokens and at the video."""
        controls = [_VIDEO, *sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)]
        return [piece for piece in re.split("(" + "|".join(map(re.escape, controls)) + ")", self.rendered) if piece]


def load_prompt(folder: Path, tokenizer: Any, video_token_id: int) -> Prompt:
    """The prompt of the checkpoint in `folder`: its chat template where it has one, else qwen_1_5."""
    return prompt_for(tokenizer, _chat_template(folder, tokenizer), video_token_id)


def prompt_for(tokenizer: Any, template: str | None, video_token_id: int) -> Prompt:
    """The prompt that `template` writes; None writes qwen_1_5."""
    has_token = 0 <= video_token_id < len(tokenizer)
    video_token = tokenizer.convert_ids_to_tokens(video_token_id) if has_token else _VIDEO
    rendered = _QWEN_1_5 if template is None else _render(tokenizer, template, video_token)
    return Prompt(tokenizer, rendered, video_token_id if has_token else NO_VIDEO_TOKEN)


def _chat_template(folder: Path, tokenizer: Any) -> str | None:
    """The multimodal template of a processor (`chat_template.json`) goes before the tokenizer's own."""
    of_processor = folder / "chat_template.json"
    if of_processor.exists():
        return str(json.loads(of_processor.read_text())["chat_template"])
    template: str | None = tokenizer.chat_template
    return template


def _render(tokenizer: Any, template: str, video_token: str) -> str:
    """Render with content as parts (multimodal templates); where the template wants strings, with one string."""
    parts = [[{"type": "text", "text": SYSTEM}], [{"type": "video"}, {"type": "text", "text": _TEXT}]]
    strings = [SYSTEM, f"{video_token}\n{_TEXT}"]
    for system, user in (parts, strings):
        turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        try:
            rendered: str = tokenizer.apply_chat_template(
                turns, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except (jinja2.TemplateError, TypeError):  # the template concatenates content as a string
            continue
        if rendered.count(video_token) == 1 and rendered.count(_TEXT) == 1 and "{'type'" not in rendered:
            return rendered.replace(video_token, _VIDEO)
    raise ValueError(f"expected a chat template that writes {video_token!r} and the user's text once, got {template!r}")


def visual_span(ids: list[int], video_token_id: int, n_visual: int) -> slice:
    """Where the video's tokens lie: the first `n_visual` placeholders of the only run of them in `ids`."""
    if video_token_id not in ids:
        raise ValueError(f"expected a prompt with the video's placeholder {video_token_id}, got none in {len(ids)} ids")
    start = ids.index(video_token_id)
    run = ids.count(video_token_id)
    if run < n_visual or any(i != video_token_id for i in ids[start : start + run]):
        raise ValueError(f"expected one run of at least {n_visual} placeholders, got {run} from {start} on")
    return slice(start, start + n_visual)
