"""Instances: recall at 1 of known and of held-out emoji, each among their own."""

import types

import numpy as np

from mm.papers import table


def test_known_and_held_out_are_asked_among_themselves():
    module = table.opened("emoji")
    held = [module.CATEGORIES.index(n) for n in module.HELD_OUT]
    category = np.array([1, 1, 1, 1, *held, held[0]], np.int32)
    colour = np.eye(8, dtype=np.float32)[:7]
    line = colour.copy()
    line[[0, 1]] = line[[1, 0]]  # two known ones are taken for each other
    line[4] = colour[0]  # a held-out one resembles a known one alone: all it finds is a tie
    z = {"colour": colour, "line": line}
    run = types.SimpleNamespace(
        params=None,
        task=types.SimpleNamespace(
            settings=types.SimpleNamespace(encoders=dict.fromkeys(z)),
            embed=lambda params, name, rows: z[name],
        ),
        data=types.SimpleNamespace(raw=lambda split: dict.fromkeys(z, category) | {"category": category}),
    )  # fmt: skip
    found = dict(module.Instances().run(run))
    assert found["known, chance"] == 1 / 4 and found["held out, chance"] == 1 / 3
    assert found["known, colour->line"] == found["known, line->colour"] == 0.5
    assert found["held out, colour->line"] == 2 / 3


def test_a_pair_of_the_clip_loss_is_asked_of_its_own_model():
    module = table.opened("emoji")
    assert (
        module.model("clip", "name->line") == module.model("clip", "line->name") == "clip-line-name"
    )
    assert module.model("pairs", "name->line") == "pairs"
    assert {module.model("clip", w) for w in module.WAYS} == {a for a in module.ARMS if a.startswith("clip")}  # fmt: skip
