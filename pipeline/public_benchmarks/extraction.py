"""From a reply to the option it means, by the rules of each benchmark in lmms-eval. Pure functions of text.

The rules are odd in places ("a red car" chooses A in MVBench). They are kept, because a score is comparable only with
scores that were made by the same rules.
"""

import hashlib
import re
from collections.abc import Sequence

_PHRASES = tuple(
    f"{start}{noun} is"
    for noun in ("answer", "correct answer", "best answer", "correct option", "best option", "choice", "correct choice")
    for start in ("the ", "")
) + (
    "i choose", "i select", "i pick", "my answer is", "my choice is",
    "옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは",
)  # fmt: skip
_FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))
_START, _END, _PHRASE, _ANY = 10, 9, 7, 0


def letter_2026(reply: str, letters: str) -> str:
    """The letter a reply means, "" for none: every way of writing one has a rank, of the highest the last counts."""
    bare = reply.strip()
    for mark in ",.!?;:'\"":
        bare = bare.strip(mark)
    text, word = f" {bare} ", bare.strip()
    found = [(rank, text.rfind(form.format(x)), x) for form, rank in _FORMS for x in letters if form.format(x) in text]
    lowered = text.lower()
    for phrase in _PHRASES:
        if (at := lowered.find(phrase)) >= 0:
            places = ((text.find(x, at + len(phrase)), x) for x in letters)
            found += [(_PHRASE, place, x) for place, x in places if place >= 0]
    if word and word[0] in letters and not word[1:2].isalpha():
        found.append((_START, 0, word[0]))
    if word and word[-1] in letters and not word[-2:-1].isalpha():
        found.append((_END, len(text) - 1, word[-1]))
    found = found or [(_ANY, text.rfind(x), x) for x in letters if x in text]
    return max(found, key=lambda one: one[:2])[2] if found else ""


_PREFIXES_2025 = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option isThe correct option is", "Best answer:Best option:",
)  # fmt: skip


def letter_2025(reply: str, letters: str) -> str:
    """VideoMME until lmms-eval 0.7.1: the first letter after known beginnings are taken away."""
    return _first_letter(reply, letters, _PREFIXES_2025)


def before_bracket_2025(reply: str) -> str:
    """MLVU from 0.3.2 to 0.7.1: what stands before the first closing bracket, else the whole reply."""
    bare = reply.strip()
    at = bare.find(")")
    return bare if at < 0 else bare[at - 1 : at]


_PREFIXES_LONGVIDEOBENCH = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option is", "The correct option is", "Best answer:", "Best option:",
)  # fmt: skip


def letter_longvideobench(reply: str) -> str:
    """LongVideoBench: the first of A to E after known beginnings are taken away, whatever options the item has."""
    return _first_letter(reply, "ABCDE", _PREFIXES_LONGVIDEOBENCH)


def _first_letter(reply: str, letters: str, prefixes: Sequence[str]) -> str:
    bare = reply.strip()
    for prefix in prefixes:
        bare = bare.replace(prefix, "")
    match = re.search(f"[{letters}]", bare)
    return match[0] if match else ""


def _padded(reply: str) -> str:
    for mark in ",.!?;:'":
        reply = reply.strip(mark)
    return f" {reply} "


def _by_content(text: str, options: Sequence[str], letters: str) -> list[tuple[int, str]]:
    """(last place, letter) of the options whose text a reply of more than five words contains."""
    if len(text.split()) <= 5:
        return []
    lowered = text.lower()
    places = ((lowered.rfind(option.lower()), x) for option, x in zip(options, letters, strict=True))
    return [(place, x) for place, x in places if place >= 0]


def letter_egoschema(reply: str, options: Sequence[str], letters: str) -> str:
    """EgoSchema: of all letters written as "(A)", "A " or "A." the one whose last place is first; else by content."""
    text = _padded(reply)
    forms = ("({})", "{} ", "{}.")
    found = [(text.rfind(form.format(x)), x) for form in forms for x in letters if form.format(x) in text]
    found = found or _by_content(text, options, letters)
    return min(found, key=lambda one: one[0])[1] if found else ""


def letter_nextqa(reply: str, options: Sequence[str], letters: str) -> str:
    """NExT-QA: the last letter of the first form that occurs, of "(A)", "A ", "A."; else by content."""
    text = _padded(reply)
    for form, placed in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        # Letters of the last two forms are ordered by where they stand alone; where none does, the first wins.
        if found := [(text.rfind(placed.format(x)), x) for x in letters if form.format(x) in text]:
            return max(found, key=lambda one: one[0])[1]
    content = _by_content(text, options, letters)
    return max(content, key=lambda one: one[0])[1] if content else ""


_MVBENCH_MARKS = (
    ";",
    "/",
    "[",
    "]",
    '"',
    "{",
    "}",
    "(",
    ")",
    "=",
    "+",
    "\\",
    "_",
    "-",
    ">",
    "<",
    "@",
    "`",
    ",",
    "?",
    "!",
)
_MOST_PERIODS = 32


def normal_mvbench(reply: str) -> str:
    """MVBench: the letter of "B. text", else the first lone a to e of the bare lower-case reply, else that reply."""
    if match := re.match(r"([A-E])\.\s*.+$", reply.strip(), re.IGNORECASE):
        return match[1].upper()
    flat = reply.replace("\n", " ").replace("\t", " ").strip()
    bare, has_number = flat, re.search(r"\d,\d", flat) is not None
    for mark in _MVBENCH_MARKS:
        at_edge = f"{mark} " in flat or f" {mark}" in flat
        bare = bare.replace(mark, "" if at_edge or has_number else " ")
    bare = re.sub(r"\.(?!\d)", "", bare, count=_MOST_PERIODS)
    for edge in "'\")(":
        bare = bare.strip(edge)
    bare = bare.strip().lower()
    match = re.search(r"\b[a-e]\b", bare, re.IGNORECASE)
    return match[0].upper() if match else bare


def drawn(item_id: str, letters: str) -> str:
    """What an unreadable reply counts as where lmms-eval draws at random: a letter that hangs on the item alone."""
    number = int.from_bytes(hashlib.sha256(f"drawn|{item_id}".encode()).digest()[:8], "big")
    return letters[number % len(letters)] if letters else ""
