"""A clip in words: every thing, scene by scene, in order; and reading such words back into facts."""

import re
from collections import Counter

from pipeline.planted.questions import article
from pipeline.planted.scene import Clip, Scene, Thing
from pipeline.planted.vocabulary import DIGITS, DIRECTIONS

CAPTION_PROMPTS = (
    "Describe this video in detail.",
    "Describe the video.",
    "Describe this video.",
    "Describe the clip.",
    "What is happening?",
    "What is happening in the video?",
    "What can be seen in this video?",
)


def _name(thing: Thing) -> str:
    """ "a red star", "a small blue ring moving left", "a white digit three changing to five" """
    look = thing.look
    words = [look.size] if look.size != "medium" else []
    words += [look.colour, "digit", look.kind] if look.kind in DIGITS else [look.colour, look.kind]
    if thing.steps:
        delta = (thing.steps[0][0] - look.cell[0], thing.steps[0][1] - look.cell[1])
        words += ["moving", next(name for name, step in DIRECTIONS.items() if step == delta)]
    if thing.becomes:
        words += ["changing", "to", thing.becomes]
    if thing.flashes:
        words += ["flashing"]
    return " ".join([article(words[0]), *words])


def scene_caption(scene: Scene) -> str:
    """The things of one scene in reading order of their first cell."""
    return " and ".join(_name(t) for t in sorted(scene.things, key=lambda t: t.look.cell)) or "nothing"


def caption(clip: Clip) -> str:
    """ "a red star and a blue ring, then a green bar." """
    return ", then ".join(scene_caption(scene) for scene in clip.scenes) + "."


def facts(text: str) -> Counter[str]:
    """The things a caption states, as "red star" or "white digit three", counted; sizes and events left out."""
    found: Counter[str] = Counter()
    for phrase in re.split(r", then|\band\b|\.", text.lower()):
        match = re.match(r"\s*(?:an?\s+)?(?:small\s+|large\s+)?(\w+)\s+(digit\s+\w+|\w+)", phrase)
        if match:
            found[f"{match[1]} {match[2]}"] += 1
    return found
