"""A program for 8 simulated devices, run by tests/test_sharding.py: python -m tests.sharded

The toy joint model on several meshes; prints JSON: per mesh the losses of 20 steps, and what a device holds.
"""

import contextlib
import functools
import json
from typing import get_args

import jax
import jax.numpy as jnp

from mm import config, sharding
from mm import state as states
from mm.models.attention import Mask, attention
from mm.models.encoder_decoder import Model
from mm.models.layers import unit
from mm.objectives.contrastive.ring import Form, Side, ring_pair_loss
from mm.objectives.masking import Masking
from mm.optim import make_optimizer
from mm.perf.batch import random_batch
from mm.space import Grid, Modality, Sequence, TokenSpace, Vocabulary
from mm.step import jitted
from mm.tasks.joint import Contrast, Joint

SPACE = TokenSpace(
    (
        Modality(name="map", vocabulary=Vocabulary(name="map", size=64), layout=Grid(h=2, w=3)),
        Modality(name="tune", vocabulary=Vocabulary(name="tune", size=48), layout=Grid(w=5)),
        Modality(
            name="words", vocabulary=Vocabulary(name="words", size=41, eos=0),
            layout=Sequence(max_len=4), order="left_to_right",
        ),
    )
)  # fmt: skip
MESHES = {"one": (1, 1, 1), "data": (8, 1, 1), "fsdp": (1, 8, 1), "fsdp x tensor": (1, 4, 2)}
STEPS, ROWS = 20, 16


def mesh_of(sizes: tuple[int, int, int]) -> jax.sharding.Mesh:
    """The first devices."""
    replica, fsdp, tensor = sizes
    mesh = config.Mesh(replica=replica, fsdp=fsdp, tensor=tensor)
    return sharding.make_mesh(mesh, ROWS, jax.devices()[: replica * fsdp * tensor])


def run(sizes: tuple[int, int, int]) -> dict[str, object]:
    """20 steps on a mesh of so many devices, each on a batch of its own."""
    model = Model(width=64, heads=4, encoder_layers=1, decoder_layers=1, embed_dim=16)
    masking, contrast = Masking(visible=8, targets=6), Contrast(weight=0.5, modalities=2)
    task = Joint(model=model, masking=masking, contrast=contrast).build_for(SPACE)
    tx = make_optimizer(config.Optim(lr=2e-3, warmup=3), STEPS)
    mesh = mesh_of(sizes)
    shapes = states.abstract(task, tx, 0, True, mesh)
    undivided = sharding.check_divided({"params": shapes["params"]}, mesh)
    state = states.init(task, tx, 0, True, mesh)
    step = jitted(task, tx, config.Optim(ema=0.9), 0, shapes)
    batch = sharding.put_batch(random_batch(SPACE, ROWS, 0), mesh)
    compiled = step.lower(shapes, batch).compile()
    memory = compiled.memory_analysis()
    losses, terms = [], {}
    for i in range(STEPS):
        state, terms = compiled(state, sharding.put_batch(random_batch(SPACE, ROWS, i), mesh))
        losses.append(float(terms["loss"]))
    held = jax.tree.leaves(state)
    vectors = [
        x
        for path, x in jax.tree_util.tree_leaves_with_path(state)
        if not any(sharding.names(sharding.path_name(path), x.ndim))
    ]
    return {
        "losses": losses,
        "terms": {k: float(v) for k, v in terms.items()},
        "undivided": undivided,
        "state_bytes": sum(x.nbytes for x in held),
        "local_bytes": sum(x.addressable_shards[0].data.nbytes for x in held),
        "vector_bytes": sum(x.nbytes for x in vectors),
        "argument_bytes": memory.argument_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
    }


def kernel_difference() -> float:
    """Largest difference between splash, which each device calls on its own part, and what the compiler splits."""
    mesh = sharding.make_mesh(config.Mesh(fsdp=4, tensor=2), 8)
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v = (jax.random.normal(key, (8, 4, 6, 8)) for key in keys[:3])
    mask = Mask.of_keys(jax.random.uniform(keys[3], (8, 6)).at[:, 0].set(1.0) > 0.3)

    def result(impl: str) -> jax.Array:
        with sharding.traced_on(mesh):
            return attention(q, k, v, mask, impl=impl)

    return float(jnp.abs(jax.jit(result, static_argnums=0)("splash") - result("xla")).max())


def ring_differences() -> dict[str, float]:
    """Largest relative difference of the ring's losses and gradients on eight devices from one device's."""
    keys = jax.random.split(jax.random.key(0), 4)
    za, zb = (unit(jax.random.normal(key, (64, 8))) for key in keys[:2])
    group = jax.random.randint(keys[2], (64,), 0, 40)
    there = jax.random.uniform(keys[3], (2, 64)) > 0.2

    def loss(mesh: jax.sharding.Mesh | None, form: Form, za: jax.Array, zb: jax.Array, scale: jax.Array) -> jax.Array:  # fmt: skip
        with sharding.traced_on(mesh) if mesh else contextlib.nullcontext():
            a, b = Side(za, group, there[0]), Side(zb, group, there[1])
            total, count = ring_pair_loss(a, b, scale, form=form, block=4)
        return total / count

    def run(mesh: jax.sharding.Mesh | None, form: Form) -> list[jax.Array]:
        both = jax.jit(jax.value_and_grad(functools.partial(loss, mesh, form), (0, 1, 2)))
        return jax.tree.leaves(both(za, zb, jnp.asarray(10.0)))

    def difference(mesh: jax.sharding.Mesh, form: Form) -> float:
        pairs = zip(run(None, form), run(mesh, form), strict=True)
        return max(float(jnp.abs(x - y).max() / jnp.abs(x).max()) for x, y in pairs)

    meshes = {name: mesh_of(MESHES[name]) for name in ("data", "fsdp", "fsdp x tensor")}
    return {f"{n}, {f}": difference(m, f) for n, m in meshes.items() for f in get_args(Form)}


if __name__ == "__main__":
    found = {name: run(sizes) for name, sizes in MESHES.items()}
    more = {"kernel difference": kernel_difference(), "ring differences": ring_differences()}
    print(json.dumps({"meshes": found} | more))
