"""The joint task: masked generation and contrast of all modalities in one step, on one trunk."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path
from flax import nnx

from mm import flops
from mm.errors import UserError
from mm.generate.sampling import Sampler, guided, sample_parallel, sample_sequence
from mm.models.attention import IMPLEMENTATIONS
from mm.models.encoder_decoder import (
    POSITIONS,
    EncoderDecoder,
    Model,
    rows_kept,
    spread_vectors,
)
from mm.models.layers import MLP_KINDS
from mm.objectives.contrastive import forms
from mm.objectives.contrastive.nway import fused_to_hidden
from mm.objectives.masked import masked_terms
from mm.objectives.masking import Masking, contrast_size, contrast_views, generation_views
from mm.space import Batch, Rows, TokenSpace, View
from mm.tasks import Terms

Tokens = tuple[np.ndarray, np.ndarray]
"""(ids int32[n, size], length int32[n]) of one modality."""


@dataclasses.dataclass(kw_only=True, slots=True)
class Contrast:
    """The contrastive half of the step.

    Attributes:
      weight: of each of its two terms beside the masked loss; 0 leaves the second encoder call out.
      modalities: how many modalities the contrast view holds (drawn per step if there are more).
      share: of a modality's tokens that the view keeps.
      form: `contrastive.forms.Form` of the unimodal term.
      fused: weight of the fused term, as a share of `weight`; 0 leaves it out.
    """

    weight: float = 0.1
    modalities: int = 3
    share: float = 0.5
    form: Any = dataclasses.field(default_factory=forms.AllPairs)
    fused: float = 1.0


@dataclasses.dataclass(kw_only=True, slots=True)
class Joint:
    """Settings of the joint task.

    Attributes:
      masked: weight of masked generation, shared out to its modalities by `shares` (1 each by default).
      samplers: how each modality is sampled, in evaluation and in use.
    """

    model: Model = dataclasses.field(default_factory=Model)
    masking: Masking = dataclasses.field(default_factory=Masking)
    contrast: Contrast = dataclasses.field(default_factory=Contrast)
    masked: float = 1.0
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    samplers: dict[str, Sampler] = dataclasses.field(default_factory=dict)

    def build(self, data: Any) -> "JointTask":
        if data.space is None:
            raise UserError(
                "config.data.tokenizers is empty: the joint task needs a tokenizer per modality"
            )
        return JointTask(self, data.space, {n: t.vectors for n, t in data.tokenizers.items()})

    def build_for(self, space: TokenSpace) -> "JointTask":
        """The task of a trained model: nothing has to be initialised."""
        return JointTask(self, space)

    def validate(self) -> None:
        m = self.model
        if m.width % m.heads or (m.width // m.heads) % 2 or m.width % 4:
            raise UserError(
                f"config.task.model.width={m.width}: must be a multiple of 4 and of 2 x heads ({m.heads})"
            )
        for field in ("width", "heads", "encoder_layers", "decoder_layers", "embed_dim"):
            if getattr(m, field) < 1:
                raise UserError(
                    f"config.task.model.{field}={getattr(m, field)}: must be at least 1"
                )
        if m.mlp not in MLP_KINDS:
            raise UserError(f"config.task.model.mlp={m.mlp!r}: use {', '.join(MLP_KINDS)}")
        if m.attention not in IMPLEMENTATIONS:
            raise UserError(
                f"config.task.model.attention={m.attention!r}: use {', '.join(IMPLEMENTATIONS)}"
            )
        if m.positions not in POSITIONS:
            raise UserError(
                f"config.task.model.positions={m.positions!r}: use {', '.join(POSITIONS)}"
            )
        if not 1 <= m.embed_layers <= m.encoder_layers:
            raise UserError(
                f"config.task.model.embed_layers={m.embed_layers}: must be 1 .. encoder_layers ({m.encoder_layers})"
            )
        if min(self.masking.visible, self.masking.targets) < 1:
            raise UserError("config.task.masking: visible and targets must be at least 1")
        if not 0 < self.contrast.share <= 1:
            raise UserError(f"config.task.contrast.share={self.contrast.share}: must be in (0, 1]")


class JointTask:
    """See `mm.tasks.Task`; besides, the token-level calls of evaluation and use."""

    def __init__(
        self,
        settings: Joint,
        space: TokenSpace,
        vectors: Mapping[str, np.ndarray | None] | None = None,
    ):
        """Args:
        vectors: per modality what its codes stand for (`Tokenizer.vectors`): where embeddings begin.
        """
        self.settings, self.space, self.vectors = settings, space, dict(vectors or {})
        shares = {n: settings.shares.get(n, 1.0) for n in space.names}
        weights = {
            f"masked/{n}": settings.masked * s / sum(shares.values()) for n, s in shares.items()
        }
        if settings.contrast.weight:
            weights["contrast/unimodal"] = settings.contrast.weight
        if settings.contrast.weight * settings.contrast.fused:
            weights["contrast/fused"] = settings.contrast.weight * settings.contrast.fused
        self.weights: Mapping[str, float] = weights
        self.graph = nnx.graphdef(
            nnx.eval_shape(lambda: EncoderDecoder(settings.model, space, rngs=nnx.Rngs(0)))
        )
        self._jitted: dict[Any, Callable] = {}

    def init(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        model = EncoderDecoder(self.settings.model, self.space, rngs=nnx.Rngs(params=key))
        share = self.settings.model.codebook_init
        for name, vectors in self.vectors.items():
            if vectors is not None and share:
                start = self.space.offset(name)
                rows = slice(start, start + len(vectors))
                table = model.token[...]
                spread = spread_vectors(jax.random.fold_in(key, start), vectors, table.shape[1])
                mixed = share**0.5 * table[rows].std() * spread + (1 - share) ** 0.5 * table[rows]
                model.token[...] = table.at[rows].set(mixed)
        return nnx.to_pure_dict(nnx.state(model, nnx.Param)), {}

    def model(self, params: Any) -> EncoderDecoder:
        return nnx.merge(self.graph, params)

    def loss(self, params: Any, buffers: Any, batch: Batch, key: jax.Array) -> tuple[Terms, Any]:
        """Masked generation on one pair of views, contrast on another, drawn independently."""
        mask_key, contrast_key = jax.random.split(key)
        model, settings = self.model(params), self.settings
        visible, targets, seen = generation_views(mask_key, settings.masking, self.space, batch)
        encoded = model.encode(visible)
        states = model.decode(targets, encoded, visible)
        remat = settings.model.remat != "none"
        terms: Terms = dict(masked_terms(model.logits, self.space, states, targets, remat))
        if settings.contrast.weight:
            terms |= self._contrast(model, batch, contrast_key, encoded, visible, seen)
        return terms, buffers

    def _contrast(
        self,
        model: EncoderDecoder,
        batch: Batch,
        key: jax.Array,
        encoded: jax.Array,
        visible: View,
        seen: jax.Array,
    ) -> Terms:
        settings = self.settings.contrast
        view, drawn, there = contrast_views(
            key, self.space, batch, settings.modalities, settings.share
        )
        z = model.embed_unimodal(view, drawn)
        z = z.reshape(-1, len(drawn), z.shape[-1]).transpose(1, 0, 2)
        scale = jnp.minimum(jnp.exp(model.logit_scale[...]), 100.0)
        views = forms.Views(z, there, batch.group, scale[0], {})
        terms = {"contrast/unimodal": settings.form(views, jax.random.fold_in(key, 1))}
        if settings.fused:
            hidden = (seen.T[drawn] == 0) & (seen.sum(1) > 0)
            fused, same = model.embed_fused(encoded, visible), forms.same_group(views)
            terms["contrast/fused"] = fused_to_hidden(fused, z, hidden, there, same, scale[1])
        return terms

    def flops(self, rows: int) -> dict[str, float]:
        """Of the forward pass over `rows` examples, by part; see `mm.flops`."""
        s, view = self.settings, None
        if s.contrast.weight:
            view = contrast_size(self.space, s.contrast.modalities, s.contrast.share)
        return flops.forward(s.model, s.masking, self.space, rows, view)

    def rows_kept(self, old: TokenSpace, ids: Mapping[str, np.ndarray]) -> Rows:
        """Where the rows of a model of `old`, a smaller space, lie in this task's; see `encoder_decoder.rows_kept`."""
        return rows_kept(old, self.space, ids)

    def export(self, params: Any, buffers: Any, folder: Path) -> None:
        """A joint model has no artefact beside its checkpoint."""

    # Token-level use. Work is cut into chunks of one static size, so that each call compiles once.

    def embed(self, params: Any, inputs: Mapping[str, Tokens], *, chunk: int = 256) -> np.ndarray:
        """float32[n, E], unit rows: of one modality its unimodal embedding, of several their fused embedding.

        Raises:
          UserError: no or unknown modalities.
        """
        names = self._ordered(inputs)

        def embed(params: Any, ids: list[jax.Array], length: list[jax.Array]) -> jax.Array:
            model, view = self.model(params), self._view(names, ids, length)
            if len(names) == 1:
                return model.embed_unimodal(view, jnp.array([self.space.index(names[0])]))
            return model.embed_fused(model.encode(view), view)

        return self._chunked(("embed", names), embed, params, [inputs[n] for n in names], chunk)

    def features(
        self, params: Any, inputs: Mapping[str, Tokens], layer: int, *, chunk: int = 256
    ) -> np.ndarray:
        """Mean over tokens of the encoder's state after `layer` layers (1 ..), float32[n, D]."""
        names = self._ordered(inputs)
        if not 1 <= layer <= self.settings.model.encoder_layers:
            raise UserError(
                f"layer={layer}: the encoder has layers 1 .. {self.settings.model.encoder_layers}"
            )

        def features(params: Any, ids: list[jax.Array], length: list[jax.Array]) -> jax.Array:
            view = self._view(names, ids, length)
            states = self.model(params).encode(view, layers=layer).astype(jnp.float32)
            return (states * view.mask[..., None]).sum(1) / jnp.maximum(
                view.mask.sum(1, keepdims=True), 1
            )

        return self._chunked(
            ("features", names, layer), features, params, [inputs[n] for n in names], chunk
        )

    def generate(
        self, params: Any, inputs: Mapping[str, Tokens], target: str, *, key: jax.Array, sampler: Sampler | None = None,
        prompt: tuple[np.ndarray, np.ndarray] | None = None, rows: int | None = None, chunk: int = 256,
    ) -> Tokens:  # fmt: skip
        """Samples `target` given all of `inputs` (which may be empty: then `rows` says how many).

        Args:
          sampler: None = the one that the settings name for `target`.
          prompt: what is known of the target: (ids int32[size], known bool[size]), the same for all rows, or [n, size] each.

        Returns:
          ids int32[n, size], length int32[n].
        """
        names, m = self._ordered(inputs, least=0), self.space[self._known(target)]
        how = sampler or self.settings.samplers.get(target, Sampler())
        count = len(inputs[names[0]][0]) if names else rows or 1
        ids, known = (
            (np.zeros(m.size, np.int32), np.zeros(m.size, bool)) if prompt is None else prompt
        )
        ids, known = (np.broadcast_to(a, (count, m.size)) for a in (ids, known))
        seeds = np.asarray(jax.random.bits(key, (count,), "uint32"))

        def generate(params: Any, ids: list[jax.Array], length: list[jax.Array]) -> jax.Array:
            *sources, given, known = ids
            predict = self._predictor(
                params, names, sources, length[: len(names)], target, how.guidance
            )
            run = sample_sequence if m.order == "left_to_right" else sample_parallel
            chunk_key = jax.random.fold_in(jax.random.key(0), length[-1][0])
            return run(predict, given, known.astype(bool), chunk_key, how)

        columns = [inputs[n] for n in names] + [(ids, seeds), (known.astype(np.int32), seeds)]
        out = self._chunked(("generate", names, target, how), generate, params, columns, chunk)
        return out, self._lengths(out, m)

    def score(
        self,
        params: Any,
        inputs: Mapping[str, Tokens],
        target: str,
        tokens: Tokens,
        *,
        key: jax.Array,
        chunk: int = 256,
    ) -> np.ndarray:
        """log p(target | inputs) in nats, float32[n], by the chain rule along one order of the places.

        Sequences are read left to right, parallel modalities in one random order (drawn from `key`) shared by all
        rows, so scores of different targets for one input compare. Exact for the model's law in that order.
        """
        names, m = self._ordered(inputs, least=0), self.space[self._known(target)]
        order = np.arange(m.size)
        if m.order != "left_to_right":
            order = np.asarray(jax.random.permutation(key, m.size))
        rank = jnp.asarray(np.argsort(order))

        def score(params: Any, ids: list[jax.Array], length: list[jax.Array]) -> jax.Array:
            *sources, given = ids
            predict = self._predictor(params, names, sources, length[:-1], target, 1.0)
            valid = jnp.arange(m.size) < length[-1][:, None]

            def step(i: jax.Array, total: jax.Array) -> jax.Array:
                log_p = jax.nn.log_softmax(predict(given, valid & (rank < i)))
                picked = jnp.take_along_axis(log_p, given[..., None], axis=-1)[..., 0]
                return total + jnp.where((rank == i) & valid, picked, 0).sum(1)

            return jax.lax.fori_loop(0, m.size, step, jnp.zeros(given.shape[0]))

        columns = [inputs[n] for n in names] + [tokens]
        return self._chunked(("score", names, target, tuple(order)), score, params, columns, chunk)

    def _predictor(
        self,
        params: Any,
        names: tuple[str, ...],
        sources: list[jax.Array],
        length: list[jax.Array],
        target: str,
        guidance: float,
    ) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """(ids, known) of the target -> logits for all its places, the sources and the known places read anew."""
        model, m = self.model(params), self.space[target]
        places = self.space.starts[target] + jnp.arange(m.size, dtype=jnp.int32)

        def logits(ids: jax.Array, known: jax.Array, seen: bool) -> jax.Array:
            own = View(ids + self.space.offset(target), jnp.broadcast_to(places, ids.shape), known)
            view = _join(self._view(names, sources, length), own) if seen and names else own
            queries = View(own.ids, own.place, ~known)
            return model.logits(model.decode(queries, model.encode(view), view), target)

        def predict(ids: jax.Array, known: jax.Array) -> jax.Array:
            if guidance == 1.0 or not names:
                return logits(ids, known, True)
            return guided(logits(ids, known, True), logits(ids, known, False), guidance)

        return predict

    def _view(self, names: tuple[str, ...], ids: list[jax.Array], length: list[jax.Array]) -> View:
        """All tokens of some modalities, side by side."""
        parts = []
        for name, i, n in zip(names, ids, length, strict=True):
            place = self.space.starts[name] + jnp.arange(i.shape[1], dtype=jnp.int32)
            parts.append(
                View(
                    i + self.space.offset(name),
                    jnp.broadcast_to(place, i.shape),
                    jnp.arange(i.shape[1]) < n[:, None],
                )
            )
        view = parts[0]
        for part in parts[1:]:
            view = _join(view, part)
        return view

    def _lengths(self, ids: np.ndarray, m: Any) -> np.ndarray:
        """Up to and with the first eos; all places where there is none."""
        if m.vocabulary.eos is None:
            return np.full(len(ids), m.size, np.int32)
        ended = ids == m.vocabulary.eos
        return np.where(ended.any(1), ended.argmax(1) + 1, m.size).astype(np.int32)

    def _known(self, name: str) -> str:
        if name not in self.space.names:
            raise UserError(f"modality {name!r}: the model has {', '.join(self.space.names)}")
        return name

    def _ordered(self, inputs: Mapping[str, Any], least: int = 1) -> tuple[str, ...]:
        """The inputs' names in the space's order."""
        for name in inputs:
            self._known(name)
        if len(inputs) < least:
            raise UserError(f"no input modality given; the model has {', '.join(self.space.names)}")
        return tuple(n for n in self.space.names if n in inputs)

    def _chunked(
        self, name: Any, function: Callable, params: Any, columns: list[Tokens], chunk: int
    ) -> np.ndarray:
        """Maps `function(params, ids, lengths)` over rows in chunks padded to one size; compiled once per `name`."""
        count = len(columns[0][0])
        chunk = min(chunk, 1 << max(count - 1, 0).bit_length())  # few rows: a small program
        jitted = self._jitted.setdefault((name, chunk), jax.jit(function))
        out = []
        for start in range(0, count, chunk):
            rows = np.minimum(np.arange(start, start + chunk), count - 1)
            ids = [jnp.asarray(np.asarray(c[0])[rows].astype(np.int32)) for c in columns]
            length = [jnp.asarray(np.asarray(c[1])[rows]) for c in columns]
            out.append(np.asarray(jitted(params, ids, length))[: count - start])
        return np.concatenate(out)


def _join(a: View, b: View) -> View:
    return View(
        *(
            jnp.concatenate(pair, 1)
            for pair in ((a.ids, b.ids), (a.place, b.place), (a.mask, b.mask))
        )
    )
