"""Captions say what is there, and can be read back."""

from collections import Counter

import numpy as np
import pytest

from pipeline.planted.captions import caption, facts
from pipeline.planted.scene import FOCUSES, Focus, sample_clip
from pipeline.planted.vocabulary import DIGITS


@pytest.mark.parametrize("focus", FOCUSES)
def test_a_caption_read_back_names_every_thing_as_often_as_it_is_there(focus: Focus) -> None:
    for seed in range(25):
        clip = sample_clip(np.random.default_rng(seed), 32, focus)
        truth = Counter(
            f"{t.look.colour} {'digit ' if t.look.kind in DIGITS else ''}{t.look.kind}"
            for scene in clip.scenes
            for t in scene.things
        )
        assert facts(caption(clip)) == truth


def test_facts_of_odd_text_are_none_or_what_it_says() -> None:
    assert facts("") == Counter()
    assert facts("A small Orange ring AND a red star moving left.") == Counter({"orange ring": 1, "red star": 1})
