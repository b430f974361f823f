"""Checkpoints: Orbax, asynchronous and atomic, with what is needed to go on (and to refuse to).

Beside the state lies `meta`: the position in the data (one global batch index, equal to the step), the
fingerprints of experiment and token space, versions, the seconds trained so far, and a checksum of every
array: Orbax alone reads a flipped bit without a word.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from etils.epath import Path

from mm import config, hosts, progress, workdir
from mm.errors import UserError, refuse_newer
from mm.sharding import path_name

FORMAT_VERSION = 1

Check = Callable[[int, dict[str, Any]], None]
"""Raises UserError where a checkpoint (its step, its meta) is of another run than this one."""


def _meant(record: logging.LogRecord) -> bool:
    """Orbax warns of what is meant: a folder that is only read, a save that waits for the one before."""
    return record.levelno >= logging.ERROR or "orbax" not in record.pathname


absl_logging.get_absl_logger().addFilter(_meant)


class Damaged(UserError):
    """A checkpoint that was whole once."""


class Checkpoints:
    """The checkpoints of one run, below `folder`."""

    def __init__(self, folder: Path, keep: int = 2, copied_at_once: int | None = None):
        """Args:
        copied_at_once: bytes of the state that are copied at a time (the largest array at least); a save then returns when
          all is written. None = all of it is copied, and written while the caller goes on.
        """
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=copied_at_once is None
        )
        handlers: dict[str, Any] = {}
        if copied_at_once:
            some = ocp.StandardCheckpointHandler(save_concurrent_gb=(copied_at_once + 1) / 1e9)  # pyright: ignore[reportArgumentType]
            handlers = {"state": some, "meta": ocp.JsonCheckpointHandler()}
        self.manager = ocp.CheckpointManager(
            folder.absolute(), options=options, item_handlers=handlers or None
        )
        self.folder = folder
        self._metas: dict[int, dict[str, Any]] = {}

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self.manager.latest_step()

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts writing; returns as soon as the arrays are copied.

        Raises:
          UserError: the save before this one failed; see `wait`.
        """
        if step == self.latest():
            return
        with progress.work(f"saving step {step}"), self._written():
            meta = meta | {"format_version": FORMAT_VERSION, "data_index": step}
            meta["checksums"] = checksums(state)
            args = ocp.args
            parts = args.Composite(state=args.StandardSave(state), meta=args.JsonSave(meta))
            self.manager.save(step, args=parts)

    def meta(self, step: int) -> dict[str, Any]:
        """What was written beside the state of `step`.

        Raises:
          Damaged: unreadable. UserError: written by a newer version.
        """
        if step not in self._metas:
            with self._readable(step):
                args = ocp.args.Composite(meta=ocp.args.JsonRestore())
                meta = self.manager.restore(step, args=args)["meta"]
            refuse_newer(f"{self.folder}/{step}", meta.get("format_version", 1), FORMAT_VERSION)
            self._metas[step] = meta
        return self._metas[step]

    def shapes(self, step: int) -> dict[str, Any]:
        """The state of `step` as a tree of what has `shape` and `dtype`; no array is read."""
        folder = self.folder.absolute() / str(step) / "state"
        with self._readable(step), ocp.StandardCheckpointer() as reader:
            return reader.metadata(folder).item_metadata.tree

    def check_tokenizers(self, step: int, tokenizers: dict[str, str]) -> None:
        """Raises UserError if the state of `step` was trained in other tokens than these (modality -> fingerprint)."""
        written = self.meta(step)["tokenizers"]
        for name in written.keys() | tokenizers.keys():
            if written.get(name) != tokenizers.get(name):
                raise UserError(
                    f"{self.folder}/{step}: another token space: it was trained with the {name!r} tokenizer {written.get(name)}, "
                    f"here is {tokenizers.get(name)}; bring that one back, or use another --workdir"
                )

    def restore_newest(self, wanted: Any, check: Check) -> tuple[Any, dict[str, Any]] | None:
        """State and meta of the newest checkpoint that is sound; None if there never was one.

        Damaged ones are named and set aside (below `damaged/`), the one before each is taken.

        Args:
          wanted: shapes, dtypes and shardings of the state.

        Raises:
          UserError: what `check` raises; other arrays than `wanted`; all checkpoints are damaged.
        """
        aside = 0
        while (step := self.latest()) is not None:
            try:
                meta = self.meta(step)
                check(step, meta)
                return self.restore(step, wanted), meta
            except Damaged as e:
                aside += 1
                print(f"{e}; set aside, the one before it is taken", flush=True)
                self._set_aside(step)
        if aside:
            raise UserError(
                f"{self.folder}: all checkpoints were damaged ({aside}, now below damaged/); train anew in another --workdir"
            )
        return None

    def restore(self, step: int, wanted: Any) -> Any:
        """The state of `step` in the shapes, dtypes and shardings of `wanted`, on any mesh.

        Raises:
          UserError: the checkpoint holds other arrays (nothing is cast). Damaged: it is not what was saved.
        """
        self._check_arrays(step, self.shapes(step), wanted)
        with progress.work(f"reading {self.folder}/{step}"):
            with self._readable(step):
                args = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
                state = self.manager.restore(step, args=args)["state"]
            self._verify(step, state)
        return state

    def restore_part(self, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
        """Only the named parts of the state of `step` ({"params": shapes}), on the first device, whatever mesh wrote them.

        Raises:
          UserError, Damaged: as `restore`.
        """
        found = self.shapes(step)
        self._check_arrays(step, {k: found.get(k, {}) for k in wanted}, wanted)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), wanted
        )
        restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
        args = ocp.args.PyTreeRestore(wanted, restore_args=restore_args, partial_restore=True)
        # A manager serves one kind of handler per item; this one reads what the other one's wrote.
        options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
        with (
            ocp.CheckpointManager(self.folder.absolute(), options=options) as reader,
            progress.work(f"reading {self.folder}/{step}"),
        ):
            with self._readable(step):
                part = reader.restore(step, args=ocp.args.Composite(state=args))["state"]
            self._verify(step, part)
        return part

    def wait(self) -> None:
        """Until what `save` started is written.

        Raises:
          UserError: it could not be; the checkpoint before it stands.
        """
        with progress.work("writing the checkpoint"), self._written():
            self.manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self.manager.close()

    def _verify(self, step: int, state: Any) -> None:
        written = self.meta(step).get("checksums", {})  # the first ones had none
        for name, found in checksums(state).items():
            if written.get(name, found) != found:
                raise Damaged(f"{self.folder}/{step}: damaged: {name} is not what was saved")

    def _check_arrays(self, step: int, there: Any, here: Any) -> None:
        if different := first_difference(there, here):
            raise UserError(
                f"{self.folder}/{step}: does not fit this model: {different}; use another --workdir"
            )

    def _set_aside(self, step: int) -> None:
        def move() -> None:
            kept = self.folder / "damaged"
            kept.mkdir(exist_ok=True)
            (self.folder / str(step)).rename(kept / str(step))

        hosts.first_alone(move)
        self._metas.pop(step, None)
        self.manager.reload()

    @contextlib.contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        try:
            yield
        # Orbax, tensorstore and JSON each raise their own for a file that is cut, changed or gone.
        except Exception as e:
            reason = " ".join(str(e).split())[:200]
            raise Damaged(f"{self.folder}/{step}: damaged ({reason})") from e

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as e:  # the disk's, tensorstore's, the thread's
            if hosts.several() and isinstance(e, jax.errors.JaxRuntimeError):
                raise  # another host is gone, which is for `hosts.parting` to tell
            reason = " ".join(str(e).split())[:200]
            raise UserError(
                f"{self.folder}: a checkpoint could not be written ({reason}); step {self.latest()} stands; "
                "make room and give the same command again"
            ) from e


def checksums(tree: Any) -> dict[str, int]:
    """Of each array, by path: the sum of its bits, odd multiples of them by place, modulo 2^32.

    Computed where the array lies; the same on any mesh. Every flipped bit changes it, as odd numbers have inverses.
    """
    # one after the other: a sum may take as much memory as its array
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): int(_sum(x)) for path, x in leaves}


@jax.jit
def _sum(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    place = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * size + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return (bits * (2 * place + 1)).sum(dtype=jnp.uint32)


def first_difference(there: Any, here: Any) -> str:
    """Of two trees of arrays (or shapes) the first that differs: "x: float32[3] there, missing here"; "" if none does."""
    a, b = _described(there), _described(here)
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            return f"{name}: {a.get(name, 'missing')} there, {b.get(name, 'missing')} here"
    return ""


def _described(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(p): f"{x.dtype}{list(x.shape)}" for p, x in leaves}


def of_run(folder: Path) -> tuple[config.Experiment, Checkpoints, int]:
    """A run's experiment, its checkpoints and the step of the newest.

    Raises:
      UserError: no run is there, or it has no checkpoint.
    """
    exp = workdir.experiment(folder)
    if (folder / "checkpoints").is_dir():
        checkpoints = Checkpoints(folder / "checkpoints")
        latest = checkpoints.latest()
        if latest is not None:
            return exp, checkpoints, latest
    raise UserError(f"{folder}: has no checkpoint yet; train first (--mode=train)")
