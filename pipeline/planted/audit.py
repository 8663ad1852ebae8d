"""Shortcuts found without a model: what could be answered from the question and its choices alone."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from pipeline.planted.items import Item


def _features(item: Item, place: int) -> Iterator[tuple[str, object]]:
    """What a blind reader could use in favour of the choice at `place`."""
    question = item.question
    choice = question.choices[place]
    words = question.text.lower().replace("?", "").replace(",", "").split()
    yield "place", place
    yield "choice", choice
    yield "wording and place", (item.wording, place)
    if question.type == "order":
        asked = [w for w in words if w in choice.split(", ")]
        yield "order asked", tuple(choice.split(", ").index(w) for w in asked)
    else:
        yield "named in the question", words.index(choice) if choice in words else -1
    yield "neighbours", tuple(sorted(c for c in question.choices if c != choice))


def best_blind_accuracy(items: Sequence[Item], folds: int = 2) -> float:
    """Cross-validated accuracy of naive Bayes over the features of each choice. Chance is one in four."""
    right = 0
    for fold in range(folds):
        train = [item for i, item in enumerate(items) if i % folds != fold]
        test = [item for i, item in enumerate(items) if i % folds == fold]
        hit: defaultdict[str, Counter[object]] = defaultdict(Counter)
        shown: defaultdict[str, Counter[object]] = defaultdict(Counter)
        for item in train:
            for place, choice in enumerate(item.question.choices):
                for name, value in _features(item, place):
                    shown[name][value] += 1
                    hit[name][value] += choice == item.question.answer

        def score(item: Item, place: int, hit=hit, shown=shown) -> float:  # type: ignore[no-untyped-def]  # bound now
            return sum(
                math.log((hit[name][value] + 1) / (shown[name][value] + 4)) for name, value in _features(item, place)
            )

        for item in test:
            best = max(range(len(item.question.choices)), key=lambda place: score(item, place))
            right += item.question.choices[best] == item.question.answer
    return right / len(items)
