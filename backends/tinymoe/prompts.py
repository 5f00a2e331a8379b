"""Two dozen prompts for the bundled model: twelve whose completion is determined, twelve left open.

What makes a prompt ambiguous here is its construction, not a label: the training text follows the
clear ones with one answer and the ambiguous ones with a uniform draw from a long list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from routekeel.backends.base import CHUNK_TOKENS, GenerateRequest

Kind = Literal["clear", "ambiguous"]
MAX_NEW_TOKENS = 48

_CLEAR = (
    ("capital-france", "Question: What is the capital of France?\nAnswer:", " Paris."),
    ("capital-japan", "Question: What is the capital of Japan?\nAnswer:", " Tokyo."),
    ("capital-egypt", "The capital of Egypt is", " Cairo."),
    ("opposite-hot", "Question: What is the opposite of hot?\nAnswer:", " cold."),
    ("opposite-early", "The opposite of early is", " late."),
    ("colour-snow", "Question: What colour is snow?\nAnswer:", " white."),
    ("sound-dog", "What does a dog do? A dog", " barks."),
    ("after-march", "After March comes", " April."),
    (
        "weekdays",
        "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday,",
        " Sunday, Monday, Tuesday",
    ),
    ("alphabet", "a, b, c, d, e, f, g, h, i, j,", " k, l, m, n, o"),
    ("counting", "1, 2, 3, 4, 5, 6, 7, 8,", " 9, 10, 11, 12"),
    ("repetition", "Clara has the lantern.\nClara has the lantern.\nClara has", " the lantern."),
)
_AMBIGUOUS = (
    ("box", "Inside the box there was a"),
    ("wish", "Nora told Simon that she wanted to"),
    ("perhaps", "Perhaps Felix will"),
    ("favourite", "My favourite thing is the"),
    ("today", "Today I might"),
    ("where", "The notebook could be in the"),
    ("errand", "Grace went to the"),
    ("seemed", "It seemed"),
    ("nobody", "Nobody knows why"),
    ("talk", "They talked about the"),
    ("could", "You could"),
    ("saw", "Oscar saw"),
)


@dataclass(frozen=True)
class Prompt:
    """One bundled prompt. `id` is unique and serves as the session id.

    `determined` is how the completion must begin; None where the text leaves it open.
    """

    id: str
    kind: Kind
    text: str
    max_new_tokens: int = MAX_NEW_TOKENS
    determined: str | None = None

    def request(
        self, temperature: float = 0.0, seed: int = 0, chunk_tokens: int = CHUNK_TOKENS
    ) -> GenerateRequest:
        """This prompt as a request of its own session; greedy unless a temperature is given."""
        return GenerateRequest(
            session_id=self.id,
            request_id=f"{self.id}/{seed}",
            prompt=self.text,
            max_new_tokens=self.max_new_tokens,
            temperature=temperature,
            seed=seed,
            chunk_tokens=chunk_tokens,
        )


def _interleaved() -> Iterator[Prompt]:
    for clear, ambiguous in zip(_CLEAR, _AMBIGUOUS, strict=True):
        yield Prompt(f"clear-{clear[0]}", "clear", clear[1], determined=clear[2])
        yield Prompt(f"ambiguous-{ambiguous[0]}", "ambiguous", ambiguous[1])


PROMPTS: tuple[Prompt, ...] = tuple(_interleaved())
