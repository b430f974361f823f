import dataclasses
import json

import jax
import numpy as np
import pytest

from mm.evals import kinds as k
from mm.evals.any_to_any import AnyToAny
from mm.evals.representation import Cards, LinearProbe
from mm.evals.retrieval import Retrieval
from mm.generate.sampling import Sampler
from mm.models.encoder_decoder import Model
from mm.tasks.joint import Joint


def test_an_untrained_model_is_found_to_know_nothing(run, kinds):
    """The evaluators make the calls that the joint task offers, and its figures are near chance."""
    model = Model(
        width=16, heads=2, encoder_layers=1, decoder_layers=1, embed_layers=1, embed_dim=8
    )
    task = Joint(model=model).build(run.data)
    params, buffers = task.init(jax.random.key(0))
    run = dataclasses.replace(run, task=task, params=params, buffers=buffers)
    two = tuple(
        dataclasses.replace(kinds[name], sampler=Sampler(steps=1))
        for name in ("picture", "caption")
    )
    generated = dict(AnyToAny(kinds=two, count=100, samples=2).run(run))
    retrieved = dict(Retrieval(kinds=(*two, kinds["wave"]), queries=60).run(run))
    assert generated.keys() == {"picture->caption", "caption->picture"}
    assert all(cell["accuracy"] < 0.6 for cell in generated.values())
    assert all(cell["map"] < cell["chance"]["map"] + 0.25 for cell in retrieved.values())
    assert "picture+caption->wave" in retrieved
    probed = dict(LinearProbe(kinds=two).run(run))
    assert probed["caption"] > 0.9, "each class has a token of its own, so a linear reader can"
    assert probed["picture"] < 0.6, "which of four places is bright is gone in the mean"
    cards = dict(Cards(kinds=two, rows=50).run(run))
    rows = [k.find_rows(run.data, "test", kind)[np.arange(50)] for kind in two]
    assert np.array_equal(rows[0].example, rows[1].example)
    x, y = (
        task.embed(params, {kind.column: k.tokens(run.data, "test", kind, r)})
        for kind, r in zip(two, rows, strict=True)
    )
    assert cards["picture~caption"]["gap"] == pytest.approx(np.linalg.norm(x.mean(0) - y.mean(0)))
    json.dumps([generated, retrieved, probed, cards], allow_nan=False)
