"""4M's modalities as data, and the token spaces of its models.

`MODALITIES` is 4M's whole table; `space` makes the token space of a model that reads and predicts some of them, under 4M's
own names ("tok_rgb@224"); `preset` knows 4M-7 and 4M-21.

Source: Mizrahi et al. 2023 (4M-7); Bachmann et al. 2024 (4M-21).
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mm import space as spaces
from mm.errors import UserError, nearest
from mm.tokenizers.wordpiece import EOS, MARKS

PLACES = 512  # on the position line of every sequence, of tokens or embeddings, whatever its length
TEXT = "text"
"""Name of the vocabulary that sequences may share."""


@dataclasses.dataclass(frozen=True, slots=True)
class Embedding:
    """How tokens become vectors: `Image` (linear, of pixels), `ImageToken`, `Sequence` or `SequenceEmb` (linear)."""

    kind: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A modality as 4M describes it.

    Attributes:
      type: `img`, `seq`, `seq_emb`, or `feature_map`.
      vocabulary: ids. max_tokens: at most. side, patch: of its picture, and of a token, in pixels.
      path: of its files, where 4M names one.
      encoder, decoder: None where it is no input, or no target; both None: raw data, which a tokenizer reads.
      channels, labels: of the raw data.
    """

    name: str
    type: str
    vocabulary: int | None = None
    max_tokens: int | None = None
    side: int | None = None
    patch: int | None = None
    path: str | None = None
    encoder: Embedding | None = None
    decoder: Embedding | None = None
    channels: int | None = None
    labels: int | None = None

    @property
    def id(self) -> int:
        """sha256(name) mod 2^15."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[-2:], "big") % 2**15


def _raw(name: str, channels: int, type: str = "img", **more: Any) -> Row:
    return Row(name=name, type=type, channels=channels, **more)


def _pixels(side: int) -> Row:
    image = Embedding("Image", {"num_channels": 3})
    more: dict[str, Any] = {"side": side, "patch": 16, "max_tokens": (side // 16) ** 2}
    return _raw(f"rgb@{side}", 3, path="rgb", encoder=image, **more)


def _tokens(name: str, vocabulary: int, side: int = 224, patch: int = 16) -> Row:
    token = Embedding("ImageToken")
    most = (side // patch) ** 2
    return Row(
        name=f"{name}@{side}", type="img", vocabulary=vocabulary, max_tokens=most, side=side, patch=patch,
        encoder=token, decoder=token,
    )  # fmt: skip


def _vector(name: str) -> Row:
    learned = Embedding("ImageToken", {"sincos_pos_emb": False})
    return Row(
        name=name, type="img", vocabulary=8192, max_tokens=16, encoder=learned, decoder=learned
    )


def _text(name: str, max_tokens: int, **more: Any) -> Row:
    arguments = {"max_length": max_tokens} | more.pop("arguments", {})
    line = Embedding("Sequence", arguments)
    return Row(
        name=name, type="seq", vocabulary=30_000, max_tokens=max_tokens, encoder=line, decoder=line, **more
    )  # fmt: skip


WAVES = {"sincos_pos_emb": True}
MODALITIES: dict[str, Row] = {
    row.name: row
    for row in (
        _pixels(224),
        _raw("rgb", 3, path="rgb"),
        _text("caption", 256),
        _text("det", 256),
        _tokens("tok_rgb", 16384),
        _tokens("tok_depth", 8192),
        _raw("depth", 1),
        _tokens("tok_normal", 8192),
        _raw("normal", 3),
        _tokens("tok_semseg", 4096),
        _raw("semseg_coco", 64, labels=134),
        _tokens("tok_clip", 8192),
        _raw("CLIP-B16", 512, "feature_map"),
        Row(name="t5_caption", type="seq_emb", max_tokens=77, encoder=Embedding("SequenceEmb", {"max_length": 77})),
        _text("metadata", 40, arguments=WAVES, path="metadata"),
        _text("human_poses", 275, arguments={"max_length": 263} | WAVES, channels=207),
        _text("color_palette", 23, arguments=WAVES, path="color_palette"),
        _raw("sam_mask", 1, max_tokens=64),
        _text("sam_instance", 290, arguments=WAVES),
        _tokens("tok_canny_edge", 8192),
        _raw("canny_edge", 1),
        _tokens("tok_sam_edge", 8192),
        _tokens("tok_dinov2", 8192, patch=14),
        _raw("DINOv2-B14", 768, "feature_map"),
        _tokens("tok_imagebind", 8192, patch=14),
        _raw("ImageBind-H14", 1280, "feature_map"),
        _vector("tok_dinov2_global"),
        _raw("DINOv2-B14-global", 768, "feature_map"),
        _vector("tok_imagebind_global"),
        _raw("ImageBind-H14-global", 1280, "feature_map"),
        _pixels(448),
        _tokens("tok_rgb", 16384, 448),
        _tokens("tok_depth", 8192, 448),
        _tokens("tok_normal", 8192, 448),
        _tokens("tok_semseg", 4096, 448),
        _tokens("tok_clip", 8192, 448),
    )
}  # fmt: skip

SEVEN = ("caption", "det", "tok_rgb@224", "tok_depth@224", "tok_normal@224", "tok_semseg@224", "tok_clip@224")  # fmt: skip
MORE = (
    "metadata", "human_poses", "color_palette", "sam_instance", "tok_canny_edge@224", "tok_sam_edge@224",
    "tok_dinov2@224", "tok_imagebind@224", "tok_dinov2_global", "tok_imagebind_global",
)  # fmt: skip
PRESETS = {
    "4m-7": (("rgb@224", *SEVEN), SEVEN),
    "4m-21": (("rgb@224", *SEVEN, "t5_caption", *MORE), (*SEVEN, *MORE)),
}
"""Name -> (inputs, targets)."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """What models differ in.

    Attributes:
      image_size: pixels of a side of what is called @224; @448 has twice as many. patch_size: pixels of a token's side, but
        for those that have 14. t5_dim: features of a T5 embedding.
      shared_text: all sequences have one vocabulary, so one range of the id line; 4M gives each its own.
      overrides: modality -> its own `max_tokens`, `vocab_size` and `patch_size`, as in 4M's tables; `id` and `type` are
        compared, other entries (of masking) not read.
    """

    image_size: int = 224
    patch_size: int = 16
    t5_dim: int = 4096
    shared_text: bool = False
    overrides: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


def space(
    names_in: Sequence[str], names_out: Sequence[str] | None = None, **sizes: Any
) -> spaces.TokenSpace:
    """The token space of a model with these inputs and targets (None: of the inputs all that can be one).

    The inputs come first, in their order, then what is a target only. Every modality of `img` tokens is a grid, but those of
    global vectors; sequences end with [EOS].

    Args:
      sizes: see `Sizes`.

    Raises:
      UserError: no such modality; one that can be no input, or no target; sizes that do not fit.
    """
    options = Sizes(**sizes)
    for name in (*names_in, *(names_out or ()), *options.overrides):
        if name not in MODALITIES:
            raise UserError(f"{name!r} is no modality of 4M{nearest(name, MODALITIES)}")
    if names_out is None:
        names_out = [n for n in names_in if MODALITIES[n].decoder]
    for names, part, word in ((names_in, "encoder", "input"), (names_out, "decoder", "target")):
        for name in names:
            if getattr(MODALITIES[name], part) is None:
                raise UserError(f"{name!r} can be no {word} of a 4M model; leave it out")
    try:
        return spaces.TokenSpace(
            tuple(
                _modality(
                    _overridden(MODALITIES[n], options), options, n in names_in, n in names_out
                )
                for n in (*names_in, *(n for n in names_out if n not in names_in))
            )
        )
    except ValueError as e:
        raise UserError(
            f"modalities of a 4M model: {e}; name each once, with like vocabularies"
        ) from e


def preset(name: str, **sizes: Any) -> spaces.TokenSpace:
    """The token space of `4m-7` or `4m-21`. Raises UserError: see `space`."""
    if name not in PRESETS:
        raise UserError(f"{name!r} is no preset of 4M{nearest(name, PRESETS)}")
    return space(*PRESETS[name], **sizes)


def _overridden(row: Row, options: Sizes) -> Row:
    """The row as a model has it: sizes as given, tokens that fill them."""
    own = options.overrides.get(row.name, {})
    for key, known in (("id", row.id), ("type", row.type)):
        if own.get(key, known) != known:
            raise UserError(f"{row.name}: {key} is {own[key]!r}, 4M's is {known!r}; mend the table")
    side = row.side and row.side * options.image_size // 224
    patch = own.get("patch_size", options.patch_size if row.patch == 16 else row.patch)
    most = own.get("max_tokens", row.max_tokens)
    if side and "max_tokens" not in own:
        if side % patch:
            raise UserError(
                f"{row.name}: patches of {patch} do not tile {side} pixels; give overrides[{row.name!r}]['max_tokens']"
            )
        most = (side // patch) ** 2
    vocabulary = own.get("vocab_size", row.vocabulary)
    return dataclasses.replace(row, side=side, patch=patch, max_tokens=most, vocabulary=vocabulary)


def _modality(row: Row, options: Sizes, seen: bool, predicted: bool) -> spaces.Modality:
    embedding = row.encoder or row.decoder
    assert embedding and row.max_tokens
    layout = _layout(row, embedding, options)
    text = isinstance(layout, spaces.Sequence)
    vocabulary = row.vocabulary and spaces.Vocabulary(
        name=TEXT if text and options.shared_text else row.name,
        size=row.vocabulary,
        eos=MARKS.index(EOS) if text else None,
    )
    return spaces.Modality(
        name=row.name,
        vocabulary=vocabulary or None,
        layout=layout,
        order="left_to_right" if text else "parallel",
        seen=seen,
        predicted=predicted,
    )


def _layout(
    row: Row, embedding: Embedding, options: Sizes
) -> spaces.Grid | spaces.Sequence | spaces.Vector | spaces.Dense:
    """Where the tokens lie."""
    most = row.max_tokens or 0
    if embedding.kind == "Sequence":
        longest = min(int(embedding.arguments["max_length"]), most)
        return spaces.Sequence(max_len=most, places=PLACES, wraps=longest)
    if embedding.kind == "SequenceEmb":
        return spaces.Dense(shape=(most, options.t5_dim), bias=True, places=PLACES)
    if not embedding.arguments.get("sincos_pos_emb", True):
        return spaces.Vector(n=most)
    side = math.isqrt(most)
    if side**2 != most:
        raise UserError(f"{row.name}: {most} tokens are no square grid; give a square max_tokens")
    if embedding.kind == "ImageToken":
        return spaces.Grid(h=side, w=side)
    features = (row.channels or 0) * (row.patch or 0) ** 2
    return spaces.Dense(shape=(most, features), grid=(side, side))
