"""A question may end with what may be answered: `What colour is the car? {red|green|blue}`.

The choices are scored by likelihood, not parsed from prose. They are part of the question's text, so one text is the
whole question wherever it is stored, compared or asked again.
"""

import re
from collections.abc import Sequence

from pipeline.errors import UsageError

_CHOICES = re.compile(r"^(.*\S)\s*\{([^{}]*\|[^{}]*)\}$", re.DOTALL)


def with_choices(question: str, choices: Sequence[str]) -> str:
    """The one text of a question and its choices. UsageError unless there are two or more plain, different choices."""
    cleaned = [choice.strip() for choice in choices]
    if len(set(cleaned)) != len(cleaned) or len(cleaned) < 2 or not all(cleaned):
        raise UsageError(f"choices {list(choices)!r} were given; expected at least two, different, none empty")
    if any(set(choice) & set("{}|") for choice in cleaned):
        raise UsageError(f"choices {list(choices)!r} were given; expected none with {{, }} or | in it")
    return f"{question.strip()} {{{'|'.join(cleaned)}}}"


def split_choices(text: str) -> tuple[str, tuple[str, ...] | None]:
    """(what the model is asked, what it may answer or None)."""
    match = _CHOICES.match(text)
    if match is None:
        return text, None
    choices = tuple(choice.strip() for choice in match[2].split("|"))
    if not all(choices) or len(set(choices)) != len(choices):
        return text, None
    return match[1], choices
