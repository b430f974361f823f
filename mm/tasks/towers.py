"""The towers task: one small encoder per modality, and objectives over their embeddings.

Papers on contrast are configs of this task: encoders, objectives of `mm.objectives.contrastive`, data.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path
from flax import nnx

from mm.chunks import mapped
from mm.errors import UserError, nearest
from mm.models.layers import unit
from mm.models.towers import Tied
from mm.objectives.contrastive.momentum import follow
from mm.objectives.contrastive.views import Form, Tokens, Views, check
from mm.tasks import Terms

CHUNKS = 32, 1024  # rows that are embedded in one compiled call


@dataclasses.dataclass(kw_only=True, slots=True)
class Towers:
    """Settings of the task.

    Attributes:
      encoders: column -> settings of its encoder (`mm.models.towers`), in the order of the objectives.
      objectives: name -> (weight, `views.Form`).
      head: a network on top, which objectives may use (`mm.models.heads`).
      width: of embeddings, which have length 1.
      scale: inverse temperature at the start. learned: whether it is trained, up to `most`.
      teacher: how much of itself a moving average of the encoders keeps each step; 0 = there is none.
      predictor: settings of a head per modality on the embeddings, which is compared with the teacher's; None = no head.
    """

    encoders: dict[str, Any]
    objectives: dict[str, tuple[float, Form]]
    head: Any = None
    width: int = 16
    scale: float = 1 / 0.07
    learned: bool = True
    most: float = 100.0
    teacher: float = 0.0
    predictor: Any = None

    def validate(self) -> None:
        for field in ("scale", "most"):
            if not 0 < getattr(self, field) < float("inf"):
                found = f"config.task.{field}={getattr(self, field)}"
                raise UserError(f"{found}: an inverse temperature is above 0, and finite")
        if self.learned and self.scale > self.most:
            found = f"config.task.scale={self.scale}"
            raise UserError(f"{found}: above config.task.most={self.most}, where it would stay")
        if len(self.encoders) < 2:
            raise UserError("config.task.encoders: contrast needs at least two modalities")
        if not 0 <= self.teacher < 1:
            raise UserError(f"config.task.teacher={self.teacher}: from 0 to below 1")
        offered = {"tokens", "embed"} | {n for n in ("head", "teacher") if getattr(self, n)}
        for name, (_, form) in self.objectives.items():
            check(form, [*self.encoders], offered, f"config.task.objectives.{name}")

    def build(self, data: Any) -> "TowersTask":
        columns = data.raw("train")
        for name in self.encoders:
            if name not in columns:
                raise UserError(f"config.task.encoders: no {name!r} in the data{nearest(name, columns)}")  # fmt: skip
        shapes = {n: np.asarray(columns[n][np.arange(1)]).shape[1:] for n in self.encoders}
        return TowersTask(self, shapes)


def pooled(x: jax.Array, there: jax.Array) -> jax.Array:
    """Tokens [B, N, width] -> the mean of those that exist, as unit rows."""
    return unit((x.astype(jnp.float32) * there[..., None]).sum(1))


class _Module(nnx.Module):
    def __init__(self, settings: Towers, shapes: Mapping[str, tuple[int, ...]], rngs: nnx.Rngs):
        for name, encoder in settings.encoders.items():
            setattr(self, name, encoder.build(shapes[name], settings.width, rngs))
        if settings.predictor is not None:
            for name in settings.encoders:
                head = settings.predictor.build((settings.width,), settings.width, rngs)
                setattr(self, f"{name}_predictor", head)
        if settings.head is not None:
            self.head = settings.head.build(len(settings.encoders), settings.width, rngs)
        if settings.learned:
            self.logit_scale = nnx.Param(jnp.log(jnp.asarray(settings.scale)))


class TowersTask:
    """See `mm.tasks.Task`. A batch is what `mm.data.batches.make_raw` makes."""

    def __init__(self, settings: Towers, shapes: Mapping[str, tuple[int, ...]]):
        self.settings, self.shapes = settings, shapes
        self.weights: Mapping[str, float] = {
            f"contrast/{name}": weight for name, (weight, _) in settings.objectives.items()
        }
        self.graph = nnx.graphdef(nnx.eval_shape(lambda: _Module(settings, shapes, nnx.Rngs(0))))
        self._embed = jax.jit(self.embedded, static_argnums=1)
        self._embed_tokens = jax.jit(self._joined, static_argnums=1)

    def init(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        module = _Module(self.settings, self.shapes, nnx.Rngs(params=key))
        params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
        return params, {"teacher": self._encoders(params)} if self.settings.teacher else {}

    def _encoders(self, params: Any) -> dict[str, Any]:
        return {n: params[n] for n in self.settings.encoders if n in params}

    def loss(self, params: Any, buffers: Any, batch: Any, key: jax.Array) -> tuple[Terms, Any]:
        tokens = {n: self.tokens(params, n, batch[n]) for n in self.settings.encoders}
        z = jnp.stack([pooled(*t) for t in tokens.values()])
        there = jnp.stack([batch["present"][name] for name in self.settings.encoders])
        views = Views(
            z, there, batch["group"], self.scale(params), batch, tuple(tokens.values()),
            partial(self.embedded, params), self.head(params),
        )  # fmt: skip
        if self.settings.teacher:
            held = params | buffers["teacher"]
            known = jnp.stack([self.embedded(held, n, batch[n]) for n in self.settings.encoders])
            views = views._replace(teacher=known, predicted=self.predicted(params, z))
            kept = follow(buffers["teacher"], self._encoders(params), self.settings.teacher)
            buffers = buffers | {"teacher": kept}
        terms = {
            f"contrast/{name}": form(views, jax.random.fold_in(key, i))
            for i, (name, (_, form)) in enumerate(self.settings.objectives.items())
        }
        return terms, buffers

    def predicted(self, params: Any, z: jax.Array) -> jax.Array:
        """Embeddings [M, B, E] through their predictors, unit."""
        if self.settings.predictor is None:
            return z
        module = nnx.merge(self.graph, params)
        heads = [getattr(module, f"{name}_predictor") for name in self.settings.encoders]
        return jnp.stack([unit(head(x)) for head, x in zip(heads, z, strict=True)])

    def scale(self, params: Any) -> jax.Array:
        """The inverse temperature."""
        if not self.settings.learned:
            return jnp.asarray(self.settings.scale)
        return jnp.minimum(jnp.exp(params["logit_scale"]), self.settings.most)

    def head(self, params: Any) -> Any:
        """The network on top, None where there is none."""
        return getattr(nnx.merge(self.graph, params), "head", None)

    def tokens(self, params: Any, name: str, rows: jax.Array) -> Tokens:
        """Raw rows of a modality -> float32[B, N, width] and bool[B, N]; N = 1 of an encoder that makes a single vector."""
        module, encoder = nnx.merge(self.graph, params), self.settings.encoders[name]
        x = getattr(module, name)(rows)
        if isinstance(encoder, Tied):
            x = getattr(module, encoder.to)(x)
        return x if isinstance(x, tuple) else (x[:, None], jnp.ones((len(x), 1), bool))

    def embedded(self, params: Any, name: str, rows: jax.Array) -> jax.Array:
        """Raw rows of a modality -> unit float32[B, width], the mean of its tokens."""
        return pooled(*self.tokens(params, name, rows))

    def embed(self, params: Any, name: str, rows: np.ndarray) -> np.ndarray:
        """Any number of raw rows -> unit float32[n, width]."""
        return mapped(lambda part: self._embed(params, name, part), rows, CHUNKS)

    def embed_tokens(
        self, params: Any, name: str, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Any number of raw rows -> unit float32[n, N, width], bool[n, N]."""
        joined = mapped(lambda part: self._embed_tokens(params, name, part), rows, CHUNKS)
        return joined[..., :-1], joined[..., -1] > 0

    def _joined(self, params: Any, name: str, rows: jax.Array) -> jax.Array:
        x, there = self.tokens(params, name, rows)
        return jnp.concatenate([unit(x), there[..., None]], -1)

    def export(self, params: Any, buffers: Any, folder: Path) -> None:
        """Towers have no artefact beside their checkpoint."""
