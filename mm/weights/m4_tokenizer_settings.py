"""The settings of 4M's tokenizers from their files, and their arguments from ours.

Shapes say everything about a network but its attention heads; these, and how the codebook is trained, stand in the config.
"""

import dataclasses
import re
from typing import Any

from etils.epath import Path

from mm.errors import UserError
from mm.tokenizers import memcodes, vit
from mm.tokenizers.quantizers import Categorical, VectorQuantizer
from mm.weights.m4_files import Arrays, Config, listed

DIFFUSION = re.compile(r"decoder\.(time_embed|input_blocks|middle_block|output_blocks|unet)\b")

WHOLE = "take the whole state dict of one tokenizer"


def settings_of(path: Path, config: Config, found: Arrays) -> tuple[Any, Any]:
    """Settings of network and quantizer, from the shapes of a state dict and what only its config says.

    Raises:
      UserError: a diffusion decoder, or no tokenizer of 4M; a key that says a size is missing; the config says another
        size, not how many heads there are, or a rule of training that there is not here.
    """
    diffusion = next((name for name in found if DIFFUSION.match(name)), None)
    if diffusion:
        raise UserError(
            f"{path}: {diffusion}: a diffusion decoder (DiVAE) has no form here yet; take a tokenizer whose decoder "
            "is a ViT or an MLP"
        )
    sizes = _Sizes(path, found)
    if "encoder.linear_in.weight" in found:
        network: Any = _mlp(sizes)
    elif "encoder.proj.weight" in found:
        network = _vit(path, config, sizes)
    else:
        raise UserError(
            f"{path}: no tokenizer of 4M: has neither encoder.proj.weight (ViT) nor encoder.linear_in.weight (MLP), "
            f"but {listed(found)}; name another file"
        )
    try:
        network.validate()
    except UserError as e:
        raise UserError(f"{path}: its settings do not fit together: {e}") from e
    quantizer = _codebook(path, config, sizes, network)
    for name, size in (("codebook_size", quantizer.codes), ("latent_dim", network.code_width)):
        if config.get(name, size) != size:
            raise UserError(
                f"{path}: its config says {name}={config[name]}, its arrays {size}; mend the config"
            )
    return network, quantizer


@dataclasses.dataclass(frozen=True, slots=True)
class _Sizes:
    """What the shapes of a state dict say."""

    path: Path
    found: Arrays

    def of(self, name: str, rank: int) -> tuple[int, ...]:
        """The shape of an array that is needed."""
        if name not in self.found:
            raise UserError(f"{self.path}: missing keys: {name}; {WHOLE}")
        shape = self.found[name].shape
        if len(shape) != rank or 0 in shape:
            raise UserError(
                f"{self.path}: {name} is {list(shape)}, not of {rank} dimensions; {WHOLE}"
            )
        return shape

    def depth(self, prefix: str) -> int:
        """How many blocks there are below `prefix`."""
        blocks = {k.removeprefix(prefix).split(".")[0] for k in self.found if k.startswith(prefix)}
        if not blocks:
            raise UserError(f"{self.path}: missing keys: {prefix}0; {WHOLE}")
        return len(blocks)

    def has(self, prefix: str) -> bool:
        return any(k.startswith(prefix) for k in self.found)


def _vit(path: Path, config: Config, sizes: _Sizes) -> vit.ViTAutoencoder:
    width, channels, patch, _ = sizes.of("encoder.proj.weight", 4)
    labels = sizes.of("cls_emb.weight", 2)[0] if sizes.has("cls_emb.") else 0
    side, other = (sizes.of(f"{name}.pos_emb", 4)[-1] * patch for name in ("encoder", "decoder"))

    def blocks(name: str, width: int) -> vit.Transformer:
        depth = sizes.depth(f"{name}.blocks.")
        return vit.Transformer(width=width, depth=depth, heads=_heads(path, config, name, width))

    return vit.ViTAutoencoder(
        rows=str(config.get("rows", _usual_rows(channels, labels, patch))),
        height=int(number(path, config, "height", side)),
        width=int(number(path, config, "width", side)),
        channels=channels,
        labels=labels,
        patch=patch,
        image_size=side,
        decoder_image_size=0 if other == side else other,
        encoder=blocks("encoder", width),
        decoder=blocks("decoder", sizes.of("post_quant_proj.weight", 4)[0]),
        post_mlp=sizes.has("encoder.post_mlp."),
        out_conv=sizes.has("decoder.out_conv."),
        **_codes(sizes),
    )


def _usual_rows(channels: int, labels: int, patch: int) -> str:
    """What the rows of 4M's tokenizers with such arrays are."""
    return "labels" if labels else "pixels" if channels == 3 and patch > 1 else "values"


def _codes(sizes: _Sizes) -> dict[str, int]:
    """Of what is coded at a place, and how."""
    width = sizes.of("quant_proj.weight", 4)[0]
    if sizes.has("quantize.codes"):
        parts, codes, _ = sizes.of("quantize.codes", 3)
        return {"code_width": width, "codebooks": parts, "memory": codes}
    several = sizes.has("quantize.project_in.")
    parts = sizes.of("quantize.project_in.weight", 2)[0] // width if several else 1
    return {"code_width": width, "codebooks": parts}


def _codebook(path: Path, config: Config, sizes: _Sizes, network: Any) -> Any:
    """The quantizer that goes with a network."""
    if network.memory:
        return Categorical(codes=network.memory)
    cosine = bool(config.get("norm_codes", not sizes.has("quantize._codebook.embed_avg")))
    if config.get("norm_latents") and not cosine:
        raise UserError(
            f"{path}: norm_latents without norm_codes has no form here; take another tokenizer"
        )
    return VectorQuantizer(
        codes=sizes.of("quantize._codebook.embed", 2)[0],
        width=network.code_width,
        decay=number(path, config, "ema_decay", 0.99),
        cosine=cosine,
        threshold=number(path, config, "threshold_ema_dead_code", 0.25),
        unit=bool(config.get("norm_latents", False)),
        drift=cosine,
        smoothing=0.0 if cosine else 1e-5,
    )


def number(path: Path, config: Config, name: str, usual: float) -> float:
    """What a config says. Raises UserError: no number."""
    try:
        return float(config.get(name, usual))
    except (TypeError, ValueError) as e:
        raise UserError(
            f"{path}: its config says {name}={config[name]!r}, no number; mend the config"
        ) from e


def _heads(path: Path, config: Config, side: str, width: int) -> int:
    """Attention heads of a side: of the size of 4M's that its config names, or as `vit` (or `vit_encoder`, ...) says."""
    named = str(config.get(f"{side[:3]}_type", ""))
    size = vit.PRESETS.get(named.removesuffix(f"_{side[:3]}"))
    free = config.get(f"vit_{side}") or config.get("vit")
    stated = free.get("num_heads") if isinstance(free, dict) else None
    if stated is None and size is None:
        raise UserError(
            f"{path}: its config does not say how many attention heads the {side} has ({named or 'no type'}); "
            f'add "vit": {{"num_heads": ...}} to {path.stem}.json'
        )
    if stated is None and size is not None and size.width != width:
        raise UserError(
            f"{path}: its config says {named}, of {size.width} features, its arrays {width}; mend the config"
        )
    heads = stated if size is None or stated is not None else size.heads
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise UserError(
            f"{path}: {heads} attention heads do not divide {width} features; mend the config"
        )
    return heads


def _mlp(sizes: _Sizes) -> memcodes.VectorAutoencoder:
    def bottleneck(side: str) -> memcodes.Bottleneck:
        wide, narrow = (sizes.of(f"{side}.linear_{end}.weight", 2) for end in ("in", "out"))
        return memcodes.Bottleneck(
            width=wide[0],
            depth=sizes.depth(f"{side}.blocks."),
            outer=narrow[0] if side == "encoder" else wide[1],
            expansion=sizes.of(f"{side}.blocks.0.block.0.weight", 2)[0] // wide[0],
        )

    return memcodes.VectorAutoencoder(
        features=sizes.of("encoder.linear_in.weight", 2)[1],
        encoder=bottleneck("encoder"),
        decoder=bottleneck("decoder"),
        **{"memory": 0} | _codes(sizes),
    )


def config_of(network: Any, quantizer: Any) -> Config:
    """The arguments by which 4M builds such a tokenizer, and those of ours that it would not guess."""
    n, q = network, quantizer
    config: Config = {"codebook_size": q.codes, "latent_dim": n.code_width}
    if n.codebooks > 1:
        config["num_codebooks"] = n.codebooks
    if n.memory:
        config["quant_type"] = "memcodes"
    else:
        config |= {
            "norm_codes": q.cosine,
            "norm_latents": q.cosine and q.unit,
            "ema_decay": q.decay,
        }
        config |= {} if q.threshold is None else {"threshold_ema_dead_code": q.threshold}
    if isinstance(n, vit.ViTAutoencoder):
        return config | _vit_config(n)
    for side, b in (("enc", n.encoder), ("dec", n.decoder)):
        wider = f"-E_{b.expansion}" if b.expansion != 4 else ""
        config[f"{side}_type"] = f"BottleneckMLP/B_{b.depth}-Wi_{b.width}{wider}"
    return config | {
        "n_channels": n.features,
        "image_size": 1,
        "patch_size": 1,
        "patch_proj": False,
    }


def _vit_config(n: vit.ViTAutoencoder) -> Config:
    config: Config = {
        "image_size": n.image_size, "patch_size": n.patch, "n_channels": n.channels, "post_mlp": n.post_mlp,
        "out_conv": n.out_conv,
    }  # fmt: skip
    for side, blocks in (("encoder", n.encoder), ("decoder", n.decoder)):
        known = [name for name, size in vit.PRESETS.items() if size == blocks]
        config[f"{side[:3]}_type"] = f"{known[0] if known else 'vit'}_{side[:3]}"
        if not known:
            free = {"dim_tokens": blocks.width, "depth": blocks.depth, "num_heads": blocks.heads}
            config[f"vit_{side}"] = free
    unusual = {
        "image_size_dec": (n.decoder_image_size, 0),
        "n_labels": (n.labels, 0),
        "patch_proj": (n.patch > 1, True),
        "rows": (n.rows, _usual_rows(n.channels, n.labels, n.patch)),
        "height": (n.height, n.image_size),
        "width": (n.width, n.image_size),
    }
    return config | {name: value for name, (value, usual) in unusual.items() if value != usual}
