"""Checkpoints: Orbax, asynchronous and atomic, with what is needed to go on (and to refuse to).

Beside the state lies `meta`: the position in the data (one global batch index, equal to the step), the
fingerprints of experiment and token space, versions and the seconds trained so far.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from mm import config, progress, workdir
from mm.errors import UserError, refuse_newer

FORMAT_VERSION = 1


def _meant(record: logging.LogRecord) -> bool:
    """Orbax warns of what is meant: a folder that is only read, a save that waits for the one before."""
    return record.levelno >= logging.ERROR or "orbax" not in record.pathname


absl_logging.get_absl_logger().addFilter(_meant)


class Checkpoints:
    """The checkpoints of one run, below `folder`."""

    def __init__(self, folder: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self.manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self.folder = folder

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self.manager.latest_step()

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts writing; returns as soon as the arrays are copied."""
        if step == self.latest():
            return
        meta = meta | {"format_version": FORMAT_VERSION, "data_index": step}
        parts = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        with progress.work(f"saving step {step}"):
            self.manager.save(step, args=parts)

    def meta(self, step: int) -> dict[str, Any]:
        """What was written beside the state of `step`.

        Raises:
          UserError: unreadable, or written by a newer version.
        """
        with self._explained(step):
            meta = self.manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))[
                "meta"
            ]
        refuse_newer(f"{self.folder}/{step}", meta.get("format_version", 1), FORMAT_VERSION)
        return meta

    def shapes(self, step: int) -> dict[str, Any]:
        """The state of `step` as a tree of what has `shape` and `dtype`; no array is read."""
        folder = self.folder.absolute() / str(step) / "state"
        with self._explained(step), ocp.StandardCheckpointer() as reader:
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

    def restore(self, step: int, abstract: Any) -> Any:
        """The state of `step` in the shapes, dtypes and shardings of `abstract`.

        Raises:
          UserError: the checkpoint holds other arrays than the model has.
        """
        with self._explained(step), progress.work(f"reading {self.folder}/{step}"):
            return self.manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            )["state"]

    def restore_part(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """Only the named parts of the state of `step` ({"params": shapes}), on the first device, whatever mesh wrote them.

        Raises:
          UserError: the checkpoint holds other arrays.
        """
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), abstract
        )
        restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
        args = ocp.args.PyTreeRestore(abstract, restore_args=restore_args, partial_restore=True)
        # A manager serves one kind of handler per item; this one reads what the other one's wrote.
        options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
        with (
            ocp.CheckpointManager(self.folder.absolute(), options=options) as reader,
            self._explained(step),
            progress.work(f"reading {self.folder}/{step}"),
        ):
            return reader.restore(step, args=ocp.args.Composite(state=args))["state"]

    @contextlib.contextmanager
    def _explained(self, step: int) -> Iterator[None]:
        try:
            yield
        except (ValueError, FileNotFoundError, KeyError) as e:
            reason = " ".join(str(e).split())[:300]
            raise UserError(
                f"{self.folder}/{step}: does not fit this model, or is damaged ({reason}); "
                "use another --workdir, or delete that folder to go on from the checkpoint before"
            ) from e

    def wait(self) -> None:
        """Until what `save` started is written."""
        with progress.work("writing the checkpoint"):
            self.manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self.manager.close()


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
