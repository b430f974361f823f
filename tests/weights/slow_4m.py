"""4M's tokenizers in NumPy, float64, from a state dict by its own names, one operation after the other: the reference.

Images are [B, C, H, W] as there. Positions must lie at the grid that they were stored at.
"""

import numpy as np
from scipy.special import erf


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class State:
    """A state dict in float64, seen from a prefix on."""

    def __init__(self, found, prefix=""):
        self.found, self.prefix = found, prefix

    def at(self, name):
        return State(self.found, f"{self.prefix}{name}.")

    def __getitem__(self, name):
        return np.asarray(self.found[self.prefix + name], np.float64)

    def has(self, name):
        return any(k.startswith(self.prefix + name) for k in self.found)

    def layers(self, name):
        i = 0
        while self.has(f"{name}.{i}."):
            yield self.at(f"{name}.{i}")
            i += 1

    def linear(self, name, x):
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def point(self, name, x):
        """A 1 x 1 convolution of [B, N, D]."""
        return x @ self[f"{name}.weight"][:, :, 0, 0].T + self[f"{name}.bias"]

    def norm(self, name, x, eps=1e-6):
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        return y * self[f"{name}.weight"] + self[f"{name}.bias"]


def block(s, x, heads):
    y = s.linear("attn.qkv", s.norm("norm1", x))
    b, n, d = x.shape
    q, k, v = y.reshape(b, n, 3, heads, d // heads).transpose(2, 0, 3, 1, 4)
    mixed = softmax(q @ k.transpose(0, 1, 3, 2) * (d // heads) ** -0.5) @ v
    x = x + s.linear("attn.proj", mixed.transpose(0, 2, 1, 3).reshape(b, n, d))
    return x + s.linear("mlp.fc2", gelu(s.linear("mlp.fc1", s.norm("norm2", x))))


def side(s, x, heads):
    places = s["pos_emb"][0]
    x = x + places.reshape(len(places), -1).T
    for layer in s.layers("blocks"):
        x = block(layer, x, heads)
    if s.has("post_mlp"):
        x = x + s.linear("post_mlp.fc2", np.tanh(s.linear("post_mlp.fc1", s.norm("norm_mlp", x))))
    return x


def convnext(s, x):
    b, c, h, w = x.shape
    wide, near = np.pad(x, ((0, 0), (0, 0), (3, 3), (3, 3))), np.zeros_like(x)
    for i in range(7):
        for j in range(7):
            taps = s["dwconv.weight"][:, 0, i, j]
            near += wide[:, :, i : i + h, j : j + w] * taps[:, None, None]
    y = (near + s["dwconv.bias"][:, None, None]).transpose(0, 2, 3, 1)
    y = s["gamma"] * s.linear("pwconv2", gelu(s.linear("pwconv1", s.norm("norm", y))))
    return x + y.transpose(0, 3, 1, 2)


def coded(s, z, cosine=True):
    """Features of places [B, N, L] -> (what is decoded [B, N, L], ids [B, N, k])."""
    if s.has("quantize.codes"):
        parts = []
        for head, asking in enumerate(np.split(z, len(s["quantize.codes"]), -1)):
            codes = s["quantize.codes"][head]
            keys, values = (codes @ s[f"quantize.to_{c}.weight"][head] for c in "kv")
            picked = (asking * asking.shape[-1] ** -0.5 @ keys.T).argmax(-1)
            parts.append((values[picked], picked))
        return np.concatenate([p[0] for p in parts], -1), np.stack([p[1] for p in parts], -1)
    book, several = s["quantize._codebook.embed"], s.has("quantize.project_in")
    z = s.linear("quantize.project_in", z) if several else z
    parts = z.reshape(*z.shape[:2], -1, book.shape[1])
    if cosine:
        ids = (unit(parts) @ unit(book).T).argmax(-1)
    else:
        ids = np.square(parts[..., None, :] - book).sum(-1).argmin(-1)
    quant = book[ids].reshape(z.shape)
    return s.linear("quantize.project_out", quant) if several else quant, ids


def vit_vq(found, x, heads, *, cosine=True):
    """(latent [B, L, h, w], quant, tokens [B, h, w] or [B, k, h, w], rec [B, C, H, W]) of an image or labels [B, H, W]."""
    s = State(found)
    if s.has("cls_emb"):
        x = s["cls_emb.weight"][x].transpose(0, 3, 1, 2)
    kernel = s["encoder.proj.weight"]
    d, c, p, _ = kernel.shape
    b, _, height, width = x.shape
    h, w = height // p, width // p
    cells = np.stack(
        [
            np.einsum("bcij,dcij->bd", x[:, :, i * p : i * p + p, j * p : j * p + p], kernel)
            for i in range(h)
            for j in range(w)
        ],
        1,
    )
    z = s.point("quant_proj", side(s.at("encoder"), cells + s["encoder.proj.bias"], heads))
    quant, ids = coded(s, z, cosine)
    y = side(s.at("decoder"), s.point("post_quant_proj", quant), heads)
    y = s.linear("decoder.out_proj", y)  # channel, row, column
    rec = np.zeros((b, y.shape[-1] // p**2, height, width))
    for i in range(h):
        for j in range(w):
            rec[:, :, i * p : i * p + p, j * p : j * p + p] = y[:, i * w + j].reshape(b, -1, p, p)
    for layer in s.at("decoder").layers("out_conv"):
        rec = convnext(layer, rec)
    plane = lambda a: a.transpose(0, 2, 1).reshape(b, -1, h, w)
    tokens = plane(ids)
    return (
        plane(z),
        plane(quant),
        tokens if ids.shape[-1] > 1 else tokens[:, 0],
        rec,
    )


def mlp(s, x):
    x = s.linear("linear_in", x)
    for i, layer in enumerate(s.layers("blocks")):
        y = s.norm(f"layernorms.{i}", x, eps=1e-5)
        x = x + layer.linear("block.2", gelu(layer.linear("block.0", y)))
    return s.linear("linear_out", x)


def mlp_vq(found, x):
    """(latent [B, L], quant [B, L], tokens [B, k] or [B], rec [B, C]) of vectors [B, C]."""
    s = State(found)
    latent = s.point("quant_proj", mlp(s.at("encoder"), x))
    quant, ids = (a[:, 0] for a in coded(s, latent[:, None]))
    tokens = ids if s.has("quantize.codes") or ids.shape[1] > 1 else ids[:, 0]
    return latent, quant, tokens, mlp(s.at("decoder"), s.point("post_quant_proj", quant))
