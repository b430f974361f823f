"""The judge task: independent classifiers that say what generated rows show.

A judge learns from real training rows only, shares no network with what it judges, and is used for
nothing else: never a loss, a selector or a feature.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils.epath import Path
from flax import nnx, traverse_util

from mm import artefact
from mm.chunks import mapped
from mm.errors import UserError, nearest
from mm.models.classifier import ConvNet
from mm.tasks import Terms, fronts
from mm.tasks.fronts import Pixels

CHUNK = 250  # rows a judge looks at in one compiled call


@dataclasses.dataclass(kw_only=True, slots=True)
class Classify:
    """Settings of the task.

    Attributes:
      column: whose raw rows are learned; the artefact is named after it. Labels are its `group`.
      classes: labels are 0 .. classes - 1.
      front: `mm.tasks.fronts.Front`, of mm or of the recipe's own.
      smoothing: share of the label spread over all classes.
      dtype: what weights are stored as.
      card: facts for people (data, licence, steps); accuracy on validation rows is added.
    """

    column: str
    classes: int = 10
    front: Any = dataclasses.field(default_factory=Pixels)
    network: ConvNet = dataclasses.field(default_factory=ConvNet)
    smoothing: float = 0.05
    dtype: str = "float16"
    card: dict[str, Any] = dataclasses.field(default_factory=dict)

    def validate(self) -> None:
        """Raises UserError for settings that no judge can have."""
        widths, depths = self.network.widths, self.network.depths
        if len(widths) != len(depths) or not widths:
            raise UserError(
                f"config.task.network: widths={widths}, depths={depths}: one of each per stage"
            )
        if not 0 <= self.smoothing < 1:
            raise UserError(
                f"config.task.smoothing={self.smoothing}: a share, from 0 to below 1; change it"
            )

    def build(self, data: Any) -> "ClassifierTask":
        """Raises UserError if the data has no such column, or other rows than the front takes."""
        columns = data.raw("train")
        if self.column not in columns:
            hint = nearest(self.column, columns)
            raise UserError(f"config.task.column={self.column!r}: not in the data{hint}")
        check_rows(self.front, np.asarray(columns[self.column][np.arange(1)]), self.column)
        return ClassifierTask(self, data)


class ClassifierTask:
    """See `mm.tasks.Task`. A batch is what `mm.data.batches.make_raw` makes."""

    def __init__(self, settings: Classify, data: Any):
        self.settings, self.data = settings, data
        self.weights: Mapping[str, float] = {"cross_entropy": 1.0}
        self.structure = split(settings)

    def init(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fresh weights."""
        s = self.settings
        network = s.network.build(s.front.shape, s.classes, nnx.Rngs(params=key))
        return nnx.to_pure_dict(nnx.state(network)), {}

    def loss(self, params: Any, buffers: Any, batch: Any, key: jax.Array) -> tuple[Terms, Any]:
        """On varied rows: `cross_entropy` in nats, labels smoothed, and the metric `accuracy`."""
        s, label = self.settings, batch["group"]
        logits = nnx.merge(self.structure, params)(s.front.varied(batch[s.column], key))
        target = optax.smooth_labels(jax.nn.one_hot(label, s.classes), s.smoothing)
        entropy = optax.softmax_cross_entropy(logits, target)
        right = (logits.argmax(-1) == label).astype(jnp.float32)
        count = jnp.float32(len(label))
        return {"cross_entropy": (entropy.sum(), count), "accuracy": (right.sum(), count)}, buffers

    def judge(self, params: Any) -> "Judge":
        """A judge with these weights as they are."""
        return Judge(self.settings, params)

    def export(self, params: Any, buffers: Any, folder: Path) -> Path:
        """Writes `folder`/`column`.safetensors; accuracy on validation rows goes into its card."""
        s = self.settings
        flat = traverse_util.flatten_dict(jax.device_get(params), sep=".")
        arrays = {name: np.asarray(a).astype(s.dtype) for name, a in flat.items()}
        stored = self.judge(traverse_util.unflatten_dict(arrays, sep="."))
        figures = accuracy(stored, *labelled(self.data, s.column, "validation"))
        config = {
            "column": s.column,
            "classes": s.classes,
            "front": {"kind": artefact.kind_of(s.front, fronts.KINDS)}
            | dataclasses.asdict(s.front),
            "network": dataclasses.asdict(s.network),
        }
        path = folder / f"{s.column}.safetensors"
        artefact.write(path, "judge", config, arrays, s.card | {"validation": figures})
        return path


class Judge:
    """A trained judge.

    Attributes:
      classes: predictions are 0 .. classes - 1.
      card: facts for people. fingerprint: of the artefact. Both are empty for one not from a file.
    """

    def __init__(
        self,
        settings: Classify,
        params: Any,
        card: dict[str, Any] | None = None,
        fingerprint: str = "",
    ):
        self.classes = settings.classes
        self.card, self.fingerprint = card or {}, fingerprint
        self._front, self._column = settings.front, settings.column
        self._params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
        structure, front = split(settings), settings.front

        @jax.jit
        def run(params: Any, rows: jax.Array) -> jax.Array:
            return nnx.merge(structure, params)(front.maps(rows)).argmax(-1).astype(jnp.int32)

        self._run = run

    def predict(self, rows: Any) -> np.ndarray:
        """Raw rows [n, ...] -> int32[n].

        Raises:
          UserError: rows of another shape or dtype than it learned.
        """
        rows = np.asarray(rows)
        check_rows(self._front, rows, self._column)
        return mapped(lambda part: self._run(self._params, part), rows, (CHUNK,))


def load(path: str | Path) -> Judge:
    """Loads a judge from its artefact.

    Raises:
      UserError: see `artefact.read` and `artefact.settings_of`; or the file holds something else.
    """
    meta, arrays = artefact.read(Path(path))
    if meta["kind"] != "judge":
        raise UserError(
            f"{path}: holds a {meta['kind']!r}, not a judge; check the path in the config"
        )
    config, front = meta["config"], meta["config"]["front"]
    settings = Classify(
        column=config["column"],
        classes=config["classes"],
        front=artefact.settings_of(
            Path(path), front.pop("kind"), front, known=fronts.KINDS, what="front", has="maps"
        ),
        network=artefact.rebuilt(ConvNet, config["network"]),
    )
    params = traverse_util.unflatten_dict(arrays, sep=".")
    return Judge(settings, params, meta["card"], meta["fingerprint"])


def split(settings: Classify) -> nnx.GraphDef:
    """The network's structure without its arrays, for `nnx.merge(structure, params)`."""
    s = settings
    return nnx.split(
        nnx.eval_shape(lambda: s.network.build(s.front.shape, s.classes, nnx.Rngs(0)))
    )[0]


def check_rows(front: Any, rows: np.ndarray, column: str) -> None:
    """Raises UserError unless rows have the shape and dtype that a front takes."""
    if rows.shape[1:] != front.row or rows.dtype != front.dtype:
        raise UserError(
            f"{column}: rows are {rows.dtype}{list(rows.shape[1:])}, the judge takes "
            f"{np.dtype(front.dtype)}{list(front.row)}; change config.task.front or the data"
        )


def labelled(data: Any, column: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All raw rows of a split that have a label, each once, and their labels int32[n]."""
    order = data.order(split, seed=0, epoch=0)
    rows, first = np.unique(order[column], return_index=True)
    first = first[rows >= 0]
    return data.raw(split)[column][order[column][first]], order["group"][first]


def accuracy(judge: Judge, rows: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The share of rows that a judge gets right, and how many rows there were."""
    return {"accuracy": float((judge.predict(rows) == labels).mean()), "rows": len(labels)}
