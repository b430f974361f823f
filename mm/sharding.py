"""Where arrays live: one mesh (replica, fsdp, tensor) and every PartitionSpec of the project.

The dimensions of an array have names, which follow from the end of its path (`NAMES`); a name says which
axes of the mesh may split the dimension (`SPLIT`). An axis takes the first dimension that it divides. So
products that widen are split over `tensor` on their output and those that narrow on their input, everything
with a width is split over `fsdp`, and optimizer moments lie like their parameters, whose paths they end with.
"""

import contextlib
import contextvars
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mm import config
from mm.errors import UserError

AXES = ("replica", "fsdp", "tensor")
BATCH = PartitionSpec(("replica", "fsdp"))
WHOLE_LIMIT = 0.02
"""The share of a model's bytes that may lie whole on every device because nothing divides it."""

# The names of the last dimensions of an array, by the end of its path; the first match holds. Dimensions before them
# (stacked layers) are never split: a scan over layers would have to gather what it slices.
NAMES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(end + "$"), names)
    for end, names in (
        (r"(^|/)buffers/.*", ()),  # statistics of quantizers: small, and read whole
        (r"/(bias|scale|mask_token|logit_scale|ns_coeffs)", ()),  # vectors
        (r"/(qkv|q|kv)/kernel", ("width", "heads")),
        (r"/(attn|cross)/out/kernel", ("heads", "width")),
        (r"/(up|gate)/kernel", ("width", "hidden")),
        (r"/down/kernel", ("hidden", "width")),
        (r"/token", ("vocabulary", "width")),
        (r"/(position|modality)", ("row", "width")),
        (r"", ("in", "out")),  # any other, of tokenizers and judges
    )
)  # fmt: skip

# Axis -> the dimensions that it may split, dearest first.
SPLIT = {
    "tensor": ("heads", "hidden", "vocabulary"),
    "fsdp": ("width", "out", "in", "hidden", "heads", "vocabulary"),
}


def make_mesh(sizes: config.Mesh, batch_size: int, devices: Any = None) -> Mesh:
    """The mesh over all devices.

    Raises:
      UserError: sizes that do not divide the devices, or data axes that do not divide the batch.
    """
    devices = jax.devices() if devices is None else devices
    shape = resolved(sizes, len(devices))
    if batch_size % (shape[0] * shape[1]):
        raise UserError(
            f"config.data.batch_size={batch_size}: not a multiple of replica x fsdp = {shape[0] * shape[1]}; change one"
        )
    return Mesh(np.array(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)


def resolved(sizes: config.Mesh, devices: int) -> tuple[int, int, int]:
    """The mesh's sizes on so many devices, the -1 filled in. Raises UserError where they do not divide."""
    shape = [sizes.replica, sizes.fsdp, sizes.tensor]
    fixed = math.prod(s for s in shape if s != -1)
    if -1 in shape and devices % fixed == 0:
        shape[shape.index(-1)] = devices // fixed
    if -1 in shape or math.prod(shape) != devices:
        raise UserError(
            f"config.mesh={tuple(shape)}: does not divide {devices} devices; change a size or use one -1"
        )
    return shape[0], shape[1], shape[2]


def names(path: str, rank: int) -> tuple[str, ...]:
    """What the dimensions of the array at `path` ("params/decoder/mlp/up/kernel") are called; "" is never split."""
    found = next(names for pattern, names in NAMES if pattern.search(path))[:rank]
    return ("",) * (rank - len(found)) + (found if rank >= 2 else ("",) * len(found))


def spec(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """The PartitionSpec of the array at `path`."""
    called = names(path, len(shape))
    dims: list[str | None] = [None] * len(shape)
    for axis, wanted in SPLIT.items():
        size = mesh.shape[axis]
        fit = [
            called.index(name)
            for name in wanted
            if name in called
            and dims[called.index(name)] is None
            and shape[called.index(name)] % size == 0
        ]
        if fit and size > 1:
            dims[fit[0]] = axis
    return PartitionSpec(*dims)


def undivided(tree: Any, mesh: Mesh | AbstractMesh) -> dict[str, int]:
    """Arrays that a rule would split and no size divides: path -> bytes. Each device holds them whole."""
    found = {}
    if mesh.shape["fsdp"] * mesh.shape["tensor"] > 1:
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            name = path_name(path)
            if any(names(name, x.ndim)) and not any(spec(name, x.shape, mesh)):
                found[name] = x.size * x.dtype.itemsize
    return found


def check_divided(params: Any, mesh: Mesh | AbstractMesh) -> list[str]:
    """What lies whole on every device for want of a divisor, as lines to print.

    Args:
      params: arrays or their shapes, below the key "params".

    Raises:
      UserError: it is more than `WHOLE_LIMIT` of all bytes.
    """
    found = undivided(params, mesh)
    share = sum(found.values()) / max(1, count_bytes(params))
    lines = [f"{name}: {size:,} bytes, whole on every device" for name, size in found.items()]
    if share > WHOLE_LIMIT:
        raise UserError(
            f"config.mesh: {share:.0%} of the model cannot be divided by fsdp={mesh.shape['fsdp']} or "
            f"tensor={mesh.shape['tensor']} ({', '.join(found)}); use smaller axes and more of replica, "
            "or widths that they divide"
        )
    return lines


def table(tree: Any, mesh: Mesh | AbstractMesh) -> list[str]:
    """One line per array: path, dtype and shape, and the axis of each dimension (- = whole)."""
    lines = []
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        name = path_name(path)
        axes = " ".join(axis or "-" for axis in spec(name, x.shape, mesh))
        lines.append(f"{name}  {x.dtype}{list(x.shape)}  {axes}".rstrip())
    return lines


def count_bytes(tree: Any) -> int:
    """Bytes of all arrays (or shapes)."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def path_name(path: Any) -> str:
    """A jax key path as text: 'params/decoder/blocks/mlp/up/kernel'."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def shardings(tree: Any, mesh: Mesh) -> Any:
    """NamedShardings for a whole state (arrays or their shapes)."""
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


def parts_of_batch(mesh: Mesh) -> int:
    """Over how many devices a batch is split."""
    return mesh.shape["replica"] * mesh.shape["fsdp"]


def part_of_host(mesh: Mesh, batch_size: int) -> slice:
    """Which examples of a batch lie on this host's devices."""
    held = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,)).values()
    parts = [index[0].indices(batch_size) for index in held if index]
    return slice(min(p[0] for p in parts), max(p[1] for p in parts))


def put_batch(batch: Any, mesh: Mesh, batch_size: int | None = None) -> Any:
    """Host arrays of a batch -> device arrays split over the data axes.

    Args:
      batch_size: of the whole batch, where this host has only its part (`part_of_host`).
    """
    layout = NamedSharding(mesh, BATCH)
    if batch_size is None or jax.process_count() == 1:
        return jax.device_put(batch, layout)
    start = part_of_host(mesh, batch_size).start

    def put(x: np.ndarray) -> jax.Array:
        def shard(index: Any) -> np.ndarray:
            first, last, _ = index[0].indices(batch_size)
            return x[first - start : last - start]

        return jax.make_array_from_callback((batch_size, *x.shape[1:]), layout, shard)

    return jax.tree.map(put, batch)


_context: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def traced_on(mesh: Mesh) -> Iterator[None]:
    """While it lasts, `split_rows` means this mesh."""
    token = _context.set(mesh)
    try:
        yield
    finally:
        _context.reset(token)


def split_rows(x: jax.Array) -> jax.Array:
    """Says of an array whose first axis is the batch that it is split there and nowhere else, as the batch is.

    The compiler finds out by itself until rows are gathered, packed or stacked; then it may copy all of them to all
    devices. Outside of a training step it says nothing.
    """
    mesh = _context.get()
    if mesh is None or x.shape[0] % parts_of_batch(mesh):
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, BATCH))


def platform() -> str:
    """What the program that is being traced will run on: `cpu`, `gpu` or `tpu`."""
    mesh = _context.get()
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def on_each_device(
    function: Callable[..., jax.Array], by_head: Sequence[jax.Array], by_row: Sequence[jax.Array]
) -> jax.Array:
    """Calls a kernel that the compiler cannot split on every device's own part of the batch and of the heads.

    Args:
      function: called with all arrays; its result is like the first of them.
      by_head: [B, H, ...]. by_row: [B, ...].
    """
    mesh = _context.get()
    if mesh is None or mesh.size == 1:
        return function(*by_head, *by_row)
    rows, heads = by_head[0].shape[:2]
    row_axes = BATCH[0] if rows % parts_of_batch(mesh) == 0 else None
    head_axis = "tensor" if heads % mesh.shape["tensor"] == 0 else None
    whole, one = PartitionSpec(row_axes, head_axis), PartitionSpec(row_axes)
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(whole,) * len(by_head) + (one,) * len(by_row),
        out_specs=whole,
        check_vma=False,  # the kernels do not say over which axes their results vary
    )(*by_head, *by_row)


@dataclasses.dataclass(frozen=True, slots=True)
class Ring:
    """The devices that a batch is split over, as seen by one of them inside of `over_batch`."""

    size: int

    def passed_on(self, tree: Any) -> Any:
        """What the device before this one holds; all pass on at once."""
        if self.size == 1:
            return tree
        around = [(i, (i + 1) % self.size) for i in range(self.size)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, BATCH[0], around), tree)

    def sum(self, x: jax.Array) -> jax.Array:
        """Over all of them."""
        return x if self.size == 1 else jax.lax.psum(x, BATCH[0])


def over_batch(function: Callable[..., Any], rows: Sequence[Any], same: Sequence[Any]) -> Any:
    """Calls `function` on every device's own part of the batch; its result is the same on all.

    Args:
      function: (*rows, *same, Ring) -> arrays. rows: trees of arrays [B, ...]. same: what every device has whole.
    """
    mesh = _context.get()
    size = 1 if mesh is None else parts_of_batch(mesh)
    if mesh is None or size == 1:
        return function(*rows, *same, Ring(1))
    return jax.shard_map(
        lambda *arrays: function(*arrays, Ring(size)),
        mesh=mesh,
        in_specs=(BATCH,) * len(rows) + (PartitionSpec(),) * len(same),
        out_specs=PartitionSpec(),
        check_vma=False,  # the sums are the same everywhere; a scan's carry hides that
    )(*rows, *same)


def here(tree: Any, mesh: Mesh) -> Any:
    """Arrays that lie on several hosts -> copies on this host's first device; others are returned as they are."""
    if jax.process_count() == 1:
        return tree
    whole = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)
