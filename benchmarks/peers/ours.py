"""Our side: python -m benchmarks.peers.ours SIZE DTYPE, or through `benchmarks.peers`."""

import dataclasses
import sys
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from benchmarks.peers import case
from mm.generate.plan_4m import Step
from mm.generate.sampling_4m import generate
from mm.models.encoder_decoder import EncoderDecoder
from mm.objectives.masked import masked_terms
from mm.objectives.packing_4m import packed
from mm.space import TokenSpace
from mm.weights import m4_modalities, m4_presets
from mm.weights.parity import buffer_of, losses


class Side:
    """A model with its state; a `sampling_4m.Trunk`."""

    def __init__(self, size: str, dtype: str):
        sized = m4_presets.model(f"fm_{size}_swiglu_nobias")
        self.settings = dataclasses.replace(sized, dtype=dtype, scan=False)
        self.space: TokenSpace = m4_modalities.space(case.NAMES_IN, case.NAMES_OUT)
        make = lambda: EncoderDecoder(self.settings, self.space, rngs=nnx.Rngs(0))
        self.graph = nnx.graphdef(nnx.eval_shape(make))
        self.params = jax.jit(lambda: nnx.to_pure_dict(nnx.state(make(), nnx.Param)))()
        self.tx = optax.adamw(1e-4, b1=0.9, b2=0.95, weight_decay=0.05)
        self.opt = jax.jit(self.tx.init)(self.params)
        self.buffers = {n: buffer_of(self.space[n], d) for n, d in case.batch().items()}
        self.step = jax.jit(self._step, donate_argnums=(0, 1))
        self.key = jax.random.key(0)

    def model(self, params: Any) -> EncoderDecoder:
        """The module with these parameters."""
        return nnx.merge(self.graph, params)

    def _step(self, params: Any, opt: Any, buffers: Any) -> tuple[Any, Any, jax.Array]:
        def loss(params: Any) -> jax.Array:
            model = self.model(params)
            visible, queries = packed(buffers, self.space, case.SEEN, case.ASKED)
            states = model.decode(queries, model.encode(visible), visible)
            return losses(masked_terms(model.logits, self.space, states, queries), self.space)[
                "mod"
            ]

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = self.tx.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt, value

    def train(self) -> None:
        """One step."""
        self.params, self.opt, value = self.step(self.params, self.opt, self.buffers)
        assert np.isfinite(float(value))

    def generate(self, steps: int) -> None:
        """One image of 196 tokens from the pixels of another."""
        pixels = np.asarray(self.buffers["rgb@224"].ids[:1])
        plan = [Step(target="tok_rgb@224", scheme="maskgit", steps=steps, schedule="cosine")]
        given = {"rgb@224": (pixels, np.full(1, case.TOKENS))}
        made = generate(self, self.params, given, plan, self.key)["tok_rgb@224"]
        assert made[0].shape == (1, case.TOKENS)


def main(size: str, dtype: str) -> None:
    """Serves `case.serve`'s protocol, everything compiled before."""
    side = Side(size, dtype)
    work = {"train": side.train, "generate 8": lambda: side.generate(8), "generate 25": lambda: side.generate(25)}  # fmt: skip
    case.serve(work)


if __name__ == "__main__":
    main(*sys.argv[1:])
