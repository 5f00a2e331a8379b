"""Generated English for training: statements whose end is determined, and sentences left open.

The contrast is on purpose. A fact, a sequence or a repetition determines what follows; "The box
held a" does not. A demo of router telemetry needs a model that has seen both.
"""

from __future__ import annotations

import random


def pairs(text: str) -> dict[str, str]:
    """'a=b,c=d' as a dict, in that order."""
    return dict(pair.split("=") for pair in text.split(","))


def words(text: str) -> list[str]:
    """The words of `text`, in order: the tables below stay readable as prose."""
    return text.split()


CAPITALS = pairs(
    "France=Paris,Germany=Berlin,Italy=Rome,Spain=Madrid,Portugal=Lisbon,Greece=Athens,"
    "Austria=Vienna,Poland=Warsaw,Sweden=Stockholm,Norway=Oslo,Denmark=Copenhagen,"
    "Finland=Helsinki,Ireland=Dublin,Hungary=Budapest,Romania=Bucharest,Bulgaria=Sofia,"
    "Japan=Tokyo,China=Beijing,Egypt=Cairo,Kenya=Nairobi,Peru=Lima,Chile=Santiago,Cuba=Havana,"
    "Canada=Ottawa,Russia=Moscow,Turkey=Ankara,Iran=Tehran,Iraq=Baghdad,Thailand=Bangkok"
)
OPPOSITES = pairs(
    "hot=cold,big=small,up=down,left=right,fast=slow,old=young,wet=dry,high=low,day=night,"
    "open=closed,full=empty,hard=soft,light=dark,early=late,rich=poor,near=far,long=short,"
    "good=bad,strong=weak,first=last,black=white,happy=sad,clean=dirty,thick=thin"
)
COLOURS_OF = pairs(
    "the sky=blue,grass=green,snow=white,coal=black,a lemon=yellow,a tomato=red,milk=white,"
    "a carrot=orange,the sea=blue,a leaf=green,blood=red,a banana=yellow,chocolate=brown"
)
SOUNDS = pairs(
    "dog=barks,cat=meows,cow=moos,duck=quacks,lion=roars,bee=buzzes,owl=hoots,snake=hisses,"
    "horse=neighs,wolf=howls,sheep=bleats,frog=croaks"
)
CYCLES = (
    words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    words("January February March April May June July August September October November December"),
    words("spring summer autumn winter"),
    words("one two three four five six seven eight nine ten eleven twelve"),
    list("abcdefghijklmnopqrstuvwxyz"),
    [str(n) for n in range(1, 31)],
    [str(n) for n in range(2, 42, 2)],
)
NAMES = words(
    "Anna Boris Clara David Emma Felix Grace Henry Irene Jonas Karin Lukas Maria Nora Oscar Paula "
    "Quentin Rosa Simon Tilda Ulrich Vera Walter Xenia Yusuf Zoe"
)
THINGS = words(
    "apple book candle drum engine feather garden hammer island jacket kettle lantern mirror "
    "notebook orange pencil quilt ribbon saddle ticket umbrella violin window yacht zebra basket "
    "camera dagger envelope flute glove helmet key ladder map needle"
)
PLACES = words(
    "attic bakery castle desert harbour forest gallery hotel inn jungle kitchen library museum "
    "north office park quarry river station theatre university village workshop yard zoo"
)
VERBS = words(
    "ask build carry dance explain follow guess hide invent jump keep laugh move notice open paint "
    "quit read sing travel understand visit wait yell answer borrow clean draw escape fish"
)
MOODS = words(
    "angry brave calm dull eager famous gentle honest idle jealous kind lonely modest nervous odd "
    "proud quiet rude shy tired useful vague warm young zealous"
)


def fact(rng: random.Random) -> str:
    """One statement or question whose ending is determined by its beginning."""
    kind = rng.randrange(6)
    if kind == 0:
        country = rng.choice(list(CAPITALS))
        city = CAPITALS[country]
        return rng.choice(
            (
                f"The capital of {country} is {city}.",
                f"{city} is the capital of {country}.",
                f"Question: What is the capital of {country}?\nAnswer: {city}.",
            )
        )
    if kind == 1:
        word = rng.choice(list(OPPOSITES))
        return rng.choice(
            (
                f"The opposite of {word} is {OPPOSITES[word]}.",
                f"Question: What is the opposite of {word}?\nAnswer: {OPPOSITES[word]}.",
            )
        )
    if kind == 2:
        thing = rng.choice(list(COLOURS_OF))
        return f"Question: What colour is {thing}?\nAnswer: {COLOURS_OF[thing]}."
    if kind == 3:
        animal = rng.choice(list(SOUNDS))
        return f"What does a {animal} do? A {animal} {SOUNDS[animal]}."
    cycle = rng.choice(CYCLES[:3])
    at = rng.randrange(len(cycle))
    return f"After {cycle[at - 1]} comes {cycle[at]}."


def sequence(rng: random.Random) -> str:
    """A stretch of a well-known sequence, or a line repeated: determined once it has begun."""
    if rng.random() < 0.3:
        name, thing = rng.choice(NAMES), rng.choice(THINGS)
        return "\n".join([f"{name} has the {thing}."] * rng.randint(3, 6))
    cycle = rng.choice(CYCLES)
    start, length = rng.randrange(len(cycle)), rng.randint(6, 24)
    if cycle[0] not in ("Monday", "January", "spring"):  # numbers and letters do not wrap around
        start = min(start, max(0, len(cycle) - 6))
        length = min(length, len(cycle) - start)
    return ", ".join(cycle[(start + i) % len(cycle)] for i in range(length)) + "."


def open_sentence(rng: random.Random) -> str:
    """One sentence whose ending its beginning leaves open, drawn uniformly from long lists."""
    name, other, thing = rng.choice(NAMES), rng.choice(NAMES), rng.choice(THINGS)
    place, verb, mood = rng.choice(PLACES), rng.choice(VERBS), rng.choice(MOODS)
    return rng.choice(
        (
            f"Inside the box there was a {thing}.",
            f"{name} told {other} about the {thing}.",
            f"{name} told {other} that she wanted to {verb}.",
            f"Perhaps {name} will {verb}, or perhaps {other} will.",
            f"My favourite thing is the {thing}.",
            f"Today I might {verb}, or I might go to the {place}.",
            f"The {thing} could be in the {place}.",
            f"{name} went to the {place} to {verb}.",
            f"It seemed {mood}, but {name} was not sure.",
            f"Nobody knows why {name} is so {mood}.",
            f"{name} saw {other} with the {thing} in the {place}.",
            f"They talked about the {thing}, the {place} and {other}.",
            f"You could {verb} with a {thing}.",
            f"They found {', '.join(rng.sample(THINGS, 4))}.",
            f"{', '.join(rng.sample(NAMES, 3))} met in the {place}.",
            f"{name} saw {mood} {other} {verb} near the {place}.",
        )
    )


def passage(rng: random.Random) -> str:
    """One short document: one to three facts, a sequence, or some open sentences in a row."""
    draw = rng.random()
    if draw < 0.60:
        return "\n".join(fact(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))) + "\n"
    if draw < 0.75:
        return sequence(rng) + "\n"
    return " ".join(open_sentence(rng) for _ in range(rng.randint(2, 6))) + "\n"
