"""A joint model without any training writes what parses: the tokenizer's grammar reaches the sampler."""

import jax

from mm.api import Model as Loaded
from mm.models.encoder_decoder import Model
from mm.space import TokenSpace
from mm.tasks.joint import Joint
from tests.tokenizers.test_shared import ROWS, tokenizer


def test_what_an_untrained_model_generates_parses():
    made = {name: tokenizer("bytes", name) for name in ("boxes", "facts")}
    tiny = Model(width=32, heads=2, encoder_layers=1, decoder_layers=1, embed_dim=16, scan=False)
    task = Joint(model=tiny).build_for(TokenSpace(tuple(t.modality for t in made.values())))
    model = Loaded(task, task.init(jax.random.key(0))[0], made)
    rows = model.generate("facts", boxes=ROWS["boxes"] * 8, seed=1)
    form = made["facts"].form
    assert len(rows) == 16 and len(set(rows)) > 1
    assert [form.to_row(form.from_row(row)) for row in rows] == rows
