import dataclasses
import json

import jax

from mm.evals.any_to_any import AnyToAny
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
    json.dumps([generated, retrieved], allow_nan=False)
