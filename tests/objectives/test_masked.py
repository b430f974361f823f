import jax
import numpy as np

from mm.objectives.masked import masked_terms
from mm.objectives.masking import Masking, generation_views
from tests.conftest import random_batch


def test_each_token_pays_for_its_own_vocabulary_only(space):
    """Slots per modality against a loop over single tokens, a modality absent from some rows."""
    rng = np.random.default_rng(0)
    batch = random_batch(space, 10, 3, absent=0.3)
    _, targets, _ = generation_views(jax.random.key(0), Masking(visible=5, targets=8), space, batch)
    states = rng.normal(size=(10, 8, 4)).astype(np.float32)
    tables = {
        m.name: rng.normal(size=(4, m.vocabulary.size)).astype(np.float32) for m in space.modalities
    }
    terms = masked_terms(lambda s, name: s @ tables[name], space, states, targets)
    sums = {name: [0.0, 0, 0] for name in space.names}
    owner = space.per_place()["modality"]
    for b, q in zip(*np.nonzero(np.asarray(targets.mask)), strict=True):
        name = space.names[owner[targets.place[b, q]]]
        logits = (states[b, q] @ tables[name]).astype(np.float64)
        token = int(targets.ids[b, q]) - space.offset(name)
        entry = sums[name]
        entry[0] += np.log(np.exp(logits).sum()) - logits[token]
        entry[1] += 1
        entry[2] += logits.argmax() == token
    for name, (total, count, right) in sums.items():
        np.testing.assert_allclose(terms[f"masked/{name}"], (total, count), rtol=1e-5)
        np.testing.assert_allclose(terms[f"accuracy/{name}"], (right, count))
    assert sum(c for _, c, _ in sums.values()) > 30
