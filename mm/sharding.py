"""Where arrays live: one mesh (replica, fsdp, tensor) and every PartitionSpec of the project.

A parameter's spec follows from the name of its last module and its shape: products that widen are split
over `tensor` on their output, products that narrow on their input; then the largest dimension that is
left and divides goes over `fsdp`. What divides nowhere is replicated.
"""

import math
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mm import config
from mm.errors import UserError

AXES = ("replica", "fsdp", "tensor")
BATCH = PartitionSpec(("replica", "fsdp"))

# (path, axis from the end that goes over `tensor`); the first match holds.
TENSOR_RULES = (
    (re.compile(r"(qkv|q|kv|up|gate)/kernel$"), -1),
    (re.compile(r"(out|down)/kernel$"), -2),
    (re.compile(r"(token|embedding)$"), -2),
)


def make_mesh(sizes: config.Mesh, batch_size: int, devices: Any = None) -> jax.sharding.Mesh:
    """The mesh over all devices.

    Raises:
      UserError: sizes that do not divide the devices, or data axes that do not divide the batch.
    """
    devices = jax.devices() if devices is None else devices
    shape = [sizes.replica, sizes.fsdp, sizes.tensor]
    fixed = math.prod(s for s in shape if s != -1)
    if -1 in shape and len(devices) % fixed == 0:
        shape[shape.index(-1)] = len(devices) // fixed
    if -1 in shape or math.prod(shape) != len(devices):
        raise UserError(
            f"config.mesh={tuple(shape)}: does not divide {len(devices)} devices; change a size or use one -1"
        )
    if batch_size % (shape[0] * shape[1]):
        raise UserError(
            f"config.data.batch_size={batch_size}: not a multiple of replica x fsdp = {shape[0] * shape[1]}; change one"
        )
    return jax.sharding.Mesh(
        np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3
    )


def spec(path: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> PartitionSpec:
    """The PartitionSpec of the parameter at `path` ("decoder/blocks/mlp/up/kernel")."""
    dims: list[str | None] = [None] * len(shape)
    for pattern, axis in TENSOR_RULES:
        if pattern.search(path) and len(shape) >= 2:
            if shape[axis] % mesh.shape["tensor"] == 0:
                dims[axis] = "tensor"
            break
    free = [i for i in range(len(shape)) if dims[i] is None and shape[i] % mesh.shape["fsdp"] == 0]
    if free and len(shape) >= 2:
        dims[max(free, key=lambda i: shape[i])] = "fsdp"
    return PartitionSpec(*dims)


def path_name(path: Any) -> str:
    """A jax key path as text, without what optax wraps around it: 'decoder/blocks/mlp/up/kernel'."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def shardings(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """NamedShardings for a whole state (arrays or their shapes); optimizer moments follow their parameters by name."""
    return jax.tree_util.tree_map_with_path(
        lambda p, x: NamedSharding(mesh, spec(path_name(p), x.shape, mesh)), tree
    )


def abstract(shapes: Any, layout: Any) -> Any:
    """Shapes and dtypes with the shardings of a tree like theirs, to lower a program or restore a state for them."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout
    )


def abstract_batch(batch: Any, mesh: jax.sharding.Mesh) -> Any:
    """What `put_batch` makes of arrays of these shapes and dtypes."""
    return abstract(batch, jax.tree.map(lambda _: NamedSharding(mesh, BATCH), batch))


def put_batch(batch: Any, mesh: jax.sharding.Mesh) -> Any:
    """Host arrays of a batch -> device arrays split over the data axes."""
    return jax.device_put(batch, NamedSharding(mesh, BATCH))
