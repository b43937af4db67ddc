"""English sentences for synthetic voices, drawn from a small grammar."""

import re

import numpy as np

from data_pipelines.corpora import Split, split_of

HELDOUT_EVERY = 10
SLOT = re.compile(r"\{(\w+)\}")

TEMPLATES = (
    "{Person} {did} {thing} {place}.",
    "{Person} {did} {thing}, and {person} {did} {thing}.",
    "Please {do} {thing} before {time}.",
    "Could you {do} {thing} {place}?",
    "Why did {person} {do} {thing} so {how}?",
    "The {quality} {animal} {moved} {how} {place}.",
    "{Count} {quality} {animals} {moved} {place} {when}.",
    "{When}, {person} will {do} {thing} {place}.",
    "I have never seen such a {quality} {animal} {place}.",
    "It was {weather} {when}, so {person} {did} {thing}.",
    "If it is {weather} at {time}, we will {do} {thing}.",
    "My {relative} keeps {count} {animals} {place}.",
    "The train to {town} leaves at {time}.",
    "From {town} to {town} it is {count} miles by road.",
    "Nobody in {town} knew why the {animal} {moved} away.",
    "Turn left {place}, then walk {how} to the {spot}.",
    "Have {person} and {person} really {done} {thing}?",
    "What a {quality} {spot}, said {person} {how}.",
    "Her {relative} has {done} {thing} in {town}.",
    "We found {count} {things} under the {quality} {spot}.",
    "There are {count} {things} {place}, but only one {animal}.",
    "Do not {do} {thing} while the {animal} is asleep.",
    "{Town} is {weather} in spring and {quality} all year round.",
    "Each of the {things} costs {count} pounds in {town}.",
    "The {spot} was {quality}, the air was {weather}.",
    "After {time} the {animals} {moved} {how} {place}.",
)
WORDS = {
    "person": (
        "Alice", "Victor", "the captain", "my neighbour", "Judith", "George", "the young doctor", "our teacher", "Ivy",
        "the old fisherman", "Miss Thatcher", "Oliver", "the baker", "a tall stranger", "Zoe", "the engineer", "Hugh",
    ),
    "did": (
        "painted", "carried", "repaired", "forgot", "measured", "sold", "borrowed", "photographed", "polished",
        "buried", "washed", "weighed", "found", "chose", "shook", "unlocked", "sketched",
    ),
    "do": (
        "paint", "carry", "repair", "forget", "measure", "sell", "borrow", "photograph", "polish", "bury", "wash",
        "weigh", "find", "choose", "shake", "unlock", "sketch",
    ),
    "done": ("painted", "carried", "repaired", "forgotten", "measured", "sold", "hidden", "chosen", "shaken", "broken"),
    "thing": (
        "the garden gate", "a violin", "two wooden boxes", "the kitchen clock", "an orange umbrella", "the blue jug",
        "a heavy suitcase", "his father's watch", "the broken wheel", "a map of the valley", "every single chair",
        "the yellow boat", "a jar of honey", "the church bell", "an unusual treasure", "some fresh bread",
        "a sharp knife",
    ),
    "things": (
        "coins", "letters", "brushes", "peaches", "bottles", "feathers", "shells", "drawings", "buttons", "wheels",
    ),
    "place": (
        "by the river", "in the market", "behind the school", "near the harbour", "on the third floor",
        "at the station", "under the bridge", "across the valley", "outside the theatre", "in a quiet village",
        "beyond the hills", "around the corner", "beside the fire", "between the houses", "on the beach",
    ),
    "spot": (
        "fountain", "orchard", "lighthouse", "staircase", "bakery", "cellar", "meadow", "chapel", "garage", "museum",
    ),
    "animal": (
        "fox", "horse", "owl", "badger", "goose", "tiger", "mouse", "dolphin", "spider", "zebra", "puppy", "whale",
    ),
    "animals": (
        "foxes", "horses", "owls", "badgers", "geese", "mice", "dolphins", "bees", "zebras", "puppies", "ducks",
    ),
    "moved": ("walked", "jumped", "ran", "hurried", "wandered", "slipped", "rushed", "crept", "marched", "vanished"),
    "how": (
        "slowly", "quietly", "with great care", "in a hurry", "without a sound", "cheerfully", "badly", "in silence",
    ),
    "quality": (
        "small", "curious", "golden", "lonely", "enormous", "thirsty", "pleasant", "shy", "wild", "joyful", "old",
        "strange", "smooth", "proud",
    ),
    "count": ("three", "five", "seven", "eight", "eleven", "fourteen", "twenty", "thirty six", "a hundred", "ninety"),
    "time": ("noon", "six o'clock", "half past four", "midnight", "ten fifteen", "sunrise", "two thirty", "supper"),
    "when": (
        "yesterday", "on Thursday", "last winter", "early this morning", "in July", "at the weekend", "tomorrow night",
        "every evening", "in the year of the flood",
    ),
    "weather": ("cold", "foggy", "warm and dry", "rainy", "cloudy", "far too hot", "windy", "bright", "icy"),
    "relative": ("mother", "uncle", "cousin", "grandfather", "sister", "youngest brother", "aunt", "nephew"),
    "town": ("Boston", "Bath", "Chester", "Vienna", "Georgetown", "Oxford", "Lisbon", "Yorkshire", "Geneva", "Houston"),
}  # fmt: skip


def sentence(rng: np.random.Generator, split: Split = "train") -> str:
    """A sentence of `split`. The split is decided by the sentence's text, so that no seed trains on a held-out one."""
    while True:
        text = SLOT.sub(lambda slot: _fill(rng, slot[1]), TEMPLATES[rng.integers(len(TEMPLATES))])
        if sentence_split(text) == split:
            return text


def sentence_split(text: str) -> Split:
    """The split in which a sentence may be used, by any voice and any task."""
    return split_of(text, HELDOUT_EVERY)


def _fill(rng: np.random.Generator, slot: str) -> str:
    words = WORDS[slot.lower()]
    word = words[rng.integers(len(words))]
    return word[0].upper() + word[1:] if slot[0].isupper() else word
