"""The joint task: masked generation and contrast of all modalities in one step, on one trunk."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path
from flax import nnx

from mm import flops
from mm.errors import UserError, nearest
from mm.generate.sampling import Sampler
from mm.models.adapters import ADAPTERS, with_adapters
from mm.models.attention import IMPLEMENTATIONS
from mm.models.encoder_decoder import (
    CONTRAST,
    POSITIONS,
    TABLES,
    EncoderDecoder,
    Model,
    rows_kept,
    spread_vectors,
)
from mm.models.layers import MLP_KINDS
from mm.objectives.contrastive.forms import AllPairs
from mm.objectives.contrastive.nway import fused_to_hidden
from mm.objectives.contrastive.views import Views, check, same_group
from mm.objectives.masked import masked_terms
from mm.objectives.masking import Masking, contrast_size, contrast_views
from mm.space import Batch, Rows, TokenSpace, View
from mm.tasks import Terms
from mm.tasks.token_calls import TokenCalls

AVERAGES = ("modality", "vocabulary")
ALL = "masked/all"


@dataclasses.dataclass(kw_only=True, slots=True)
class Contrast:
    """The contrastive half of the step.

    Attributes:
      weight: of each of its two terms beside the masked loss; 0 leaves the second encoder call out.
      modalities: how many modalities the contrast view holds (drawn per step if there are more). of: from these; () = all.
      share: of a modality's tokens that the view keeps.
      form: `contrastive.views.Form` of the unimodal term.
      fused: weight of the fused term, as a share of `weight`; 0 leaves it out.
    """

    weight: float = 0.1
    modalities: int = 3
    of: tuple[str, ...] = ()
    share: float = 0.5
    form: Any = dataclasses.field(default_factory=AllPairs)
    fused: float = 1.0


@dataclasses.dataclass(kw_only=True, slots=True)
class Joint:
    """Settings of the joint task.

    Attributes:
      masking: `masking.Masking`, or `masking_4m.Masking4M`.
      masked: weight of masked generation; 0 leaves the decoder out.
      average: of its cross-entropies. `modality`: over the tokens of each modality, then over all that can be predicted, by
        `shares` (1 each by default; one that nothing is asked of counts 0: 4M's `mod`); `vocabulary`: over all tokens, each
        counted as often as it has ids to choose from (4M's `token`).
      samplers: how each modality is sampled, in evaluation and in use.
      adapters: rank of factors beside every kernel (`mm.models.adapters`), for training with the rest frozen
        (`config.optim.frozen="^(?!adapters)"`); 0 = none.
    """

    model: Model = dataclasses.field(default_factory=Model)
    masking: Any = dataclasses.field(default_factory=Masking)
    contrast: Contrast = dataclasses.field(default_factory=Contrast)
    masked: float = 1.0
    average: str = "modality"
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    samplers: dict[str, Sampler] = dataclasses.field(default_factory=dict)
    adapters: int = 0

    def build(self, data: Any) -> "JointTask":
        if data.space is None:
            raise UserError(
                "config.data.tokenizers is empty: the joint task needs a tokenizer per modality"
            )
        self.masking.check(data.space)
        if self.contrast.weight:
            if unknown := [n for n in self.contrast.of if n not in data.space.names]:
                raise UserError(
                    f"config.task.contrast.of: no modality {unknown[0]!r}{nearest(unknown[0], data.space.names)}"
                )
            names = (self.contrast.of or data.space.names)[: self.contrast.modalities]
            check(self.contrast.form, names, (), "config.task.contrast (weight=0 leaves it out)")  # fmt: skip
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
        for field in ("width", "heads", "encoder_layers", "decoder_layers"):
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
        if m.tables not in TABLES:
            raise UserError(f"config.task.model.tables={m.tables!r}: use {', '.join(TABLES)}")
        if self.contrast.weight and m.embed_dim < 1:
            raise UserError(
                f"config.task.model.embed_dim={m.embed_dim}: contrast needs embeddings; at least 1, or contrast.weight=0"
            )
        if not 1 <= m.embed_layers <= m.encoder_layers:
            raise UserError(
                f"config.task.model.embed_layers={m.embed_layers}: must be 1 .. encoder_layers ({m.encoder_layers})"
            )
        self.masking.validate()
        if self.average not in AVERAGES:
            raise UserError(f"config.task.average={self.average!r}: use {', '.join(AVERAGES)}")
        if not (self.masked or self.contrast.weight):
            raise UserError(
                "config.task: masked=0 and contrast.weight=0: nothing would be learned; set one of them"
            )
        if not 0 < self.contrast.share <= 1:
            raise UserError(f"config.task.contrast.share={self.contrast.share}: must be in (0, 1]")


def masked_weights(settings: Joint, space: TokenSpace) -> dict[str, float]:
    """What each term of masked generation counts in the loss."""
    if settings.average == "vocabulary":
        return {ALL: settings.masked}
    shares = {m.name: settings.shares.get(m.name, 1.0) for m in space.modalities if m.predicted}
    return {f"masked/{n}": settings.masked * s / sum(shares.values()) for n, s in shares.items()}


def by_vocabulary(terms: Terms, space: TokenSpace) -> tuple[jax.Array, jax.Array]:
    """Cross-entropies of all modalities as one term, each token counted as often as its modality has ids.

    Source: 4M's `token` loss, sum_m L_m c_m / sum_m c_m where c_m is the number of logits (of the whole batch here).
    """
    sizes = {f"masked/{n}": space.vocabulary(n).size for n in space.only("predicted").names}
    total = lambda part: sum((terms[t][part] * size for t, size in sizes.items()), jnp.zeros(()))
    return total(0), total(1)


class JointTask(TokenCalls):
    """See `mm.tasks.Task`; evaluation and use call what it inherits."""

    def __init__(
        self,
        settings: Joint,
        space: TokenSpace,
        vectors: Mapping[str, np.ndarray | None] | None = None,
    ):
        """Args:
        vectors: per modality what its codes stand for (`Tokenizer.vectors`): where embeddings begin.
        """
        super().__init__()
        self.settings, self.space, self.vectors = settings, space, dict(vectors or {})
        weights = masked_weights(settings, space) if settings.masked else {}
        if settings.contrast.weight:
            weights["contrast/unimodal"] = settings.contrast.weight
        if settings.contrast.weight * settings.contrast.fused:
            weights["contrast/fused"] = settings.contrast.weight * settings.contrast.fused
        self.weights: Mapping[str, float] = weights
        self.graph = nnx.graphdef(
            nnx.eval_shape(lambda: EncoderDecoder(settings.model, space, rngs=nnx.Rngs(0)))
        )

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
        buffers = {"step": jnp.zeros((), jnp.int32)} if self.settings.masking.warmup else {}
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        if rank := self.settings.adapters:
            params = with_adapters(params, rank, jax.random.fold_in(key, 1))
        return params, buffers

    def loss(self, params: Any, buffers: Any, batch: Batch, key: jax.Array) -> tuple[Terms, Any]:
        """Masked generation on one pair of views, contrast on another, drawn independently."""
        mask_key, contrast_key = jax.random.split(key)
        model, settings, hidden = self.model(params), self.settings, None
        if warmup := settings.masking.warmup:
            shape = (batch.group.shape[0], 1 + len(self.space.names))
            hidden = warmup.draw(jax.random.fold_in(key, 2), buffers["step"], shape)
            buffers = {"step": buffers["step"] + 1}
        visible, targets, seen = settings.masking.views(
            mask_key, self.space, batch, None if hidden is None else hidden[:, :1]
        )
        encoded = model.encode(visible)
        terms: Terms = {}
        if settings.masked:
            states = model.decode(targets, encoded, visible)
            remat = settings.model.remat != "none"
            terms |= masked_terms(model.logits, self.space, states, targets, remat)
            if settings.average == "vocabulary":
                terms[ALL] = by_vocabulary(terms, self.space)
        if settings.contrast.weight:
            apart = None if hidden is None else hidden[:, 1:]
            terms |= self._contrast(model, batch, contrast_key, encoded, visible, seen, apart)
        return terms, buffers

    def _contrast(
        self,
        model: EncoderDecoder,
        batch: Batch,
        key: jax.Array,
        encoded: jax.Array,
        visible: View,
        seen: jax.Array,
        hidden: jax.Array | None,
    ) -> Terms:
        settings = self.settings.contrast
        view, drawn, there = contrast_views(
            key, self.space, batch, settings.modalities, settings.share, hidden, settings.of
        )
        if (warmup := self.settings.masking.warmup) and hidden is not None:
            there &= (1 - hidden.T[drawn]) >= warmup.contrasted
        z = model.embed_unimodal(view, drawn)
        z = z.reshape(-1, len(drawn), z.shape[-1]).transpose(1, 0, 2)
        scale = jnp.minimum(jnp.exp(model.logit_scale[...]), 100.0)
        views = Views(z, there, batch.group, scale[0], {})
        terms = {"contrast/unimodal": settings.form(views, jax.random.fold_in(key, 1))}
        if settings.fused:
            hidden = (seen.T[drawn] == 0) & (seen.sum(1) > 0)
            fused, same = model.embed_fused(encoded, visible), same_group(views)
            terms["contrast/fused"] = fused_to_hidden(fused, z, hidden, there, same, scale[1])
        return terms

    def flops(self, rows: int) -> dict[str, float]:
        """Of the forward pass over `rows` examples, by part; see `mm.flops`."""
        s, view = self.settings, None
        if s.contrast.weight:
            view = contrast_size(self.space, s.contrast.modalities, s.contrast.share, s.contrast.of)
        found = flops.forward(s.model, s.masking, self.space, rows, view)
        return {n: f for n, f in found.items() if s.masked or n not in ("decoder", "logits")}

    def rows_kept(self, old: TokenSpace, ids: Mapping[str, np.ndarray]) -> Rows:
        """Where the rows of a model of `old`, a smaller space, lie in this task's; see `encoder_decoder.rows_kept`."""
        return rows_kept(self.settings.model, old, self.space, ids)

    def added(self, old: TokenSpace) -> tuple[str, ...]:
        """Paths of what a model of `old` may lack: what contrast needs, adapters, and what reads new dense modalities."""
        return *CONTRAST, ADAPTERS, *(f"dense/{n}" for n in self.space.names if n not in old.names)

    def export(self, params: Any, buffers: Any, folder: Path) -> None:
        """A joint model has no artefact beside its checkpoint."""
