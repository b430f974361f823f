"""One form of each kind with values of its own, and random sentences of a grammar."""

import numpy as np
from hypothesis import strategies as st

from mm.tokenizers.structured.automaton import Grammar
from mm.tokenizers.structured.form import Number
from mm.tokenizers.structured.objects import Boxes, Instances, Poses
from mm.tokenizers.structured.records import Field, Metadata, Palette, Tree

PIXEL = Number(low=0, high=64, step=1)
LABELS = ("dog", "dog house", "hot dog", "large red cube", "large blue cube", "Zürich")
SIZE = Number(low=-1, high=1, step=0.01)
AXES = (
    ("x", Number(low=-2, high=2)),
    ("y", Number(low=0.5, high=6, step=0.5)),
    ("turn", Number(low=-180, high=180, step=5)),
    ("z", Number(low=-0.03, high=0.04, step=0.01)),
    ("radius", Number(low=0, high=1e-3)),
)
FIELDS = (
    Field(name="n_objects", number=Number(low=1, high=6, step=1)),
    Field(name="sky", names=("day", "foggy night", "foggy day")),
    Field(name="share", number=Number(low=0, high=0.995, step=0.005, cut=True)),
)
FORMS = {
    "boxes": Boxes(labels=LABELS, x=PIXEL, y=Number(low=0, high=9, step=1)),
    "shares": Boxes(labels=("cat",), most=3),
    "instances": Instances(
        labels=LABELS, point=True, size=SIZE, attributes=("red", "cube"), most=4
    ),
    "poses": Poses(numbers=AXES, most=2),
    "named_poses": Poses(numbers=AXES[:2], labels=LABELS),
    "palette": Palette(),
    "weights": Palette(hex=True, weights=Number(), most=0),
    "metadata": Metadata(fields=FIELDS),
    "tree": Tree(labels=("scene", "at"), attributes=("red", "at"), number=PIXEL, depth=3),
    "text_tree": Tree(labels=("scene", "at"), number=AXES[2][1], depth=2, text=True),
}


def values(number: Number) -> st.SearchStrategy:
    """What the bins of a number stand for."""
    return st.integers(0, number.last).map(number.scale("").value)


def corners(x: Number, y: Number) -> st.SearchStrategy[list]:
    pairs = st.tuples(*(st.lists(values(n), min_size=2, max_size=2).map(sorted) for n in (x, y)))
    return pairs.map(lambda p: [p[0][0], p[1][0], p[0][1], p[1][1]])


def value_of(name: str) -> st.SearchStrategy:
    """Values of a form, on its grid."""
    f = FORMS[name]
    many = lambda item: st.lists(item, max_size=getattr(f, "most", 0) or 6)
    match f:
        case Boxes():
            return many(st.fixed_dictionaries({"label": st.sampled_from(f.labels), "box": corners(f.x, f.y)}))  # fmt: skip
        case Instances():
            needed = {"label": st.sampled_from(f.labels), "box": corners(f.x, f.y)}
            needed["attributes"] = st.lists(st.sampled_from(f.attributes), max_size=3)
            more = {"point": st.tuples(values(f.x), values(f.y)).map(list), "size": values(SIZE)}
            return many(st.fixed_dictionaries(needed, optional=more))
        case Poses():
            row = st.tuples(*(values(n) for _, n in f.numbers)).map(list)
            named = st.fixed_dictionaries({"label": st.sampled_from(LABELS), "pose": row})
            return many(named if f.labels else row)
        case Palette():
            colour = st.lists(st.integers(0, 255), min_size=3, max_size=3)
            if not f.weights:
                return many(colour)
            spelt = colour.map(lambda c: f"#{bytes(c).hex()}")
            return many(st.fixed_dictionaries({"colour": spelt, "weight": values(f.weights)}))
        case Metadata():
            said = {g.name: values(g.number) if g.number else st.sampled_from(g.names) for g in f.fields}  # fmt: skip
            return st.fixed_dictionaries({}, optional=said)
        case Tree():
            leaf = values(f.number) | (
                st.sampled_from(f.attributes) if f.attributes else st.nothing()
            )
            level = leaf
            for _ in range(f.depth):
                tree = st.tuples(st.sampled_from(f.labels), st.lists(level, max_size=4))
                level, made = leaf | tree.map(_joined), tree.map(_joined)
            return made


def _joined(pair: tuple[str, list]) -> list:
    return [pair[0], *pair[1]]


def walk(grammar: Grammar, rng: np.random.Generator, length: int) -> list[str]:
    """A random sentence: any place and token that may come, until it may end and is long enough; then the shortest way out."""
    state, found, far = grammar.start, [], grammar.shortest()
    while True:
        ends = state.place in grammar.ends
        ways = list(grammar.follows[state.place])
        if len(found) >= length or (ends and rng.random() < 0.1):
            if ends:
                return found
            least = min(far[i + 1] for i in ways)
            ways = [i for i in ways if far[i + 1] == least]
        elif not ways:
            return found
        words = grammar.places[ways[int(rng.integers(len(ways)))]].words
        after = None
        while after is None:  # the last word of a place is below no floor
            token = words[int(rng.integers(len(words)))]
            after, words = grammar.step(state, token), words[words.index(token) :]
        found.append(token)
        state = after
