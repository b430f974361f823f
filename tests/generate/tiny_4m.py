"""A tiny random trunk of 4M's form, and its logits asked for token by token."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mm.models.encoder_decoder import EncoderDecoder, Model
from mm.space import Dense, Grid, Modality, Sequence, TokenSpace, Vector, View, Vocabulary

MARKS = range(4, 12)  # [S_0] ... [S_7] of the texts here


def _modality(name, vocabulary, layout, **more):
    own = vocabulary and Vocabulary(name=name, size=vocabulary, eos=more.pop("eos", None))
    return Modality(name=name, vocabulary=own, layout=layout, **more)


text = partial(_modality, vocabulary=20, order="left_to_right", eos=3)
SPACE = TokenSpace(
    (
        _modality("pixels", None, Dense(shape=(4, 6), grid=(2, 2)), predicted=False),
        _modality("said", None, Dense(shape=(3, 5), bias=True, places=8), predicted=False),
        text("words", layout=Sequence(max_len=6, places=16)),
        _modality("depth", 7, Grid(h=2, w=3)),
        _modality("dots", 3, Grid(w=3)),
        _modality("gist", 5, Vector(n=4)),
    )
)


class Tiny:
    """A trunk of 4M's form whose random weights depend strongly on what is seen."""

    def __init__(self, space):
        settings = Model(
            width=16, heads=2, encoder_layers=1, decoder_layers=1, embed_dim=0, token_scale=1.0, token_std=1.0,
            positions="by_layout", tables="three", padding_speaks=True,
        )  # fmt: skip
        self.space = space
        self.graph, self.params = nnx.split(EncoderDecoder(settings, space, rngs=nnx.Rngs(0)))
        self.logits = jax.jit(self._logits, static_argnames=("target",))

    def model(self, params):
        return nnx.merge(self.graph, params)

    def _logits(self, ids, places, mask, values, queried, asked, given, *, target):
        """Of one row: what is visible at all places of a list, and queries."""
        model = self.model(self.params)
        view = View(ids[None], places[None], mask[None], values=values)
        queries = View(jnp.zeros_like(queried)[None], queried[None], asked[None], given[None])
        return model.logits(model.decode(queries, model.encode(view), view, silent=True), target)[0]

    def row(self, known, target, queried, given=None):
        """Logits [queries, V] of one row, its tokens listed one by one.

        Args:
          known: per modality list of (position, id), or values float[n, features], already in order.
          queried: positions of the target. given: the ids they are told.
        """
        listed, values = [], {}
        for m in self.space.modalities:
            start, of = self.space.starts[m.name], known.get(m.name, [])
            if isinstance(m.layout, Dense):
                values[m.name] = np.zeros((1, *m.layout.shape), np.float32)
                values[m.name][0, : len(of)] = np.reshape(of, (len(of), -1)) if len(of) else 0
                listed += [(start + i, i) for i in range(len(of))]
            else:
                listed += [(start + p, self.space.offset(m.name) + i) for p, i in of]
        room, slots = 40, 8
        pad = lambda xs, n, of=0: np.array([*xs, *[of] * (n - len(xs))], np.int32)
        told = [-1] * len(queried) if given is None else [self.space.offset(target) + g for g in given]  # fmt: skip
        out = self.logits(
            pad([i for _, i in listed], room), pad([p for p, _ in listed], room), np.arange(room) < len(listed),
            values, pad([self.space.starts[target] + q for q in queried], slots),
            np.arange(slots) < len(queried), pad(told, slots, -1), target=target,
        )  # fmt: skip
        return np.asarray(out)[: len(queried)]
