"""Fills everyday sentences: phrases of `everyday`, and nouns of WordNet."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from tools.demo_preset import everyday
from tools.demo_preset.wordnet import Synset, frequent_nouns, short_definition

T = TypeVar("T")

FILLERS: Final = ("food", "person", "artifact")
VOWELS: Final = "aeiou"


class Templates:
    """Source of random sentences; the same for a seed."""

    def __init__(self, synsets: dict[str, Synset], seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311
        self._nouns = frequent_nouns(synsets)
        self._synonyms = _synonyms(synsets)
        self._topics = list(everyday.TOPICS.values())

    def draw(self, kind: Callable[[], str], number: int) -> Iterator[str]:
        """Yields `number` sentences of a kind; about a fifth has a word replaced by a synonym."""
        for _ in range(number):
            sentence = kind()
            yield self._replace_word(sentence) if self._random.random() < 0.2 else sentence

    def question(self) -> str:
        """A question about an action."""
        actions, _, _ = self._pick(self._topics)
        return self._fill(self._pick(everyday.QUESTIONS), a=self._pick(actions))

    def sentence(self) -> str:
        """A sentence about an action, or advice."""
        actions, _, advice = self._pick(self._topics)
        frame = self._pick(everyday.SENTENCES)
        return self._fill(frame, a=self._pick(actions), v=self._pick(advice))

    def statement(self) -> str:
        """A statement, alone or within others of its topic."""
        _, statements, advice = self._pick(self._topics)
        first, second = self._random.sample(statements, 2)
        return self._fill(self._pick(everyday.STATEMENTS), s=first, s2=second, v=self._pick(advice))

    def noun(self) -> str:
        """A sentence about a noun of WordNet."""
        field = self._pick(list(everyday.NOUN_FRAMES))
        first, second = self._random.sample(self._nouns[field], 2)
        frame = self._pick(everyday.NOUN_FRAMES[field])
        return self._fill(frame, n=first, m=second)

    def fact(self) -> str:
        """A question or a sentence about a fact."""
        questions, answers, pairs = self._pick(list(everyday.FACTS.values()))
        key, _, value = self._pick(pairs).partition("=")
        frame = self._pick(questions if self._random.random() < 0.5 else answers)
        return self._fill(frame, k=key, v=value)

    def meaning(self) -> str:
        """A sentence with a word of several meanings."""
        sentences = self._pick(everyday.MEANINGS)
        sentence = self._pick(sentences)
        frame = self._pick(["{s}", "{s} {w}", "{p} said: {s}", "I know that {s}", "{s}.", "{s}, and {s2}."])
        return self._fill(frame, s=sentence, s2=self._pick(sentences))

    def _fill(self, frame: str, **values: str) -> str:
        values = {
            "p": self._pick(everyday.PEOPLE),
            "w": self._pick(everyday.WHEN),
            **{field: self._pick(self._nouns[field]) for field in FILLERS},
            **values,
        }
        sentence = frame.format(**values)
        words = sentence.split()
        for i, word in enumerate(words[:-1]):
            if word in {"a", "A"} and words[i + 1][0].lower() in VOWELS:
                words[i] += "n"
        sentence = " ".join(words)
        return sentence[0].upper() + sentence[1:]

    def _replace_word(self, sentence: str) -> str:
        words = sentence.split(" ")
        known = [i for i, word in enumerate(words) if word in self._synonyms]
        if not known:
            return sentence
        chosen = self._pick(known)
        words[chosen] = self._pick(self._synonyms[words[chosen]])
        return " ".join(words)

    def _pick(self, values: Sequence[T]) -> T:
        return self._random.choice(values)


def _synonyms(synsets: dict[str, Synset]) -> dict[str, list[str]]:
    """Synonyms of each word of four letters and more, in its most frequent sense."""
    best: dict[str, tuple[int, Synset]] = {}
    for synset in synsets.values():
        for word, count in zip(synset.words, synset.counts, strict=True):
            if len(word) > 3 and count > best.get(word, (4, synset))[0]:
                best[word] = count, synset
    return {
        word: others
        for word, (_, synset) in sorted(best.items())
        if (others := [other for other, n in zip(synset.words, synset.counts, strict=True) if other != word and n])
    }


def definitions(synset: Synset, generator: random.Random) -> Iterator[str]:
    """Yields a question and a sentence about the meaning of a word."""
    word, meaning = synset.words[0], short_definition(synset)
    frames = ["{w}: {d}", "A {w} is {d}.", "What is {d}?", "{d}", "{w} means {d}"]
    yield generator.choice(frames).format(w=word, d=meaning)
    yield generator.choice(["What is a {w}?", "What does {w} mean?", "the meaning of {w}", "{w}"]).format(w=word)
