"""The original's side: python theirs.py CHECKOUT SIZE DTYPE, run by an interpreter that has PyTorch."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import sys
import types

sys.path.insert(0, os.path.dirname(__file__))
import case  # pyright: ignore[reportMissingImports]

ABSENT = (
    "albumentations", "boto3", "botocore", "braceexpand", "cv2", "datasets", "diffusers", "ffcv", "ftfy", "matplotlib", "pandas", "pkg_resources", "pycocotools",
    "regex", "requests", "sklearn", "timm", "torchmetrics", "torchvision", "wandb", "webdataset",
)  # fmt: skip
"""What the original imports for work that is not done here."""


class Nothing(types.ModuleType):
    """A module that is not here: whatever is asked of it is a class that can be anything."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(
            name,
            (),
            {"__init__": lambda self, *a, **k: None, "__call__": lambda self, *a, **k: None},
        )


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The last that is asked for a module: makes those of nothing that are `ABSENT`."""

    def find_spec(self, name, path=None, target=None):
        unused = name.split(".")[0] in ABSENT
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if unused else None

    def create_module(self, spec):
        return Nothing(spec.name)

    def exec_module(self, module):
        module.__path__ = []


def main(checkout, size, dtype):
    import numpy as np
    import torch  # pyright: ignore[reportMissingImports]

    sys.path.insert(0, checkout)
    sys.meta_path.append(Absent())
    torch.set_num_threads(1)
    draw = random.sample
    random.sample = lambda population, k: draw(list(population), k)
    from fourm.models.fm import FM  # pyright: ignore[reportMissingImports]
    from fourm.models.generate import (  # pyright: ignore[reportMissingImports]
        GenerationSampler,
        build_chained_generation_schedules,
        init_empty_target_modality,
        init_full_input_modality,
    )

    width, layers, heads = case.SIZES[size]
    model = FM({
        "domains_in": list(case.NAMES_IN), "domains_out": list(case.NAMES_OUT), "image_size": 224, "patch_size": 16,
        "dim": width, "encoder_depth": layers, "decoder_depth": layers, "num_heads": heads, "mlp_ratio": 4,
        "qkv_bias": False, "proj_bias": False, "mlp_bias": False, "norm_bias": False, "act_layer": "SiLU", "gated_mlp": True, "qk_norm": False,
    })  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
    inputs = {
        n: {k: torch.from_numpy(np.array(v)) for k, v in d.items()} for n, d in case.batch().items()
    }
    low = dtype == "bfloat16"

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss, _ = model(inputs, case.SEEN, case.ASKED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    sampler, info = GenerationSampler(model), model.modality_info
    pixels = {"rgb@224": {"tensor": inputs["rgb@224"]["tensor"][:1]}}

    def generate(steps):
        given = init_full_input_modality(dict(pixels), info, "rgb@224", "cpu")
        given = init_empty_target_modality(given, info, "tok_rgb@224", 1, case.TOKENS, "cpu")
        plan = build_chained_generation_schedules(
            cond_domains=["rgb@224"], target_domains=["tok_rgb@224"], tokens_per_target=[case.TOKENS],
            autoregression_schemes=["maskgit"], decoding_steps=[steps], token_decoding_schedules=["cosine"],
            temps=[1.0], temp_schedules=["constant"], cfg_scales=[1.0], cfg_schedules=["constant"],
        )  # fmt: skip
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            made = sampler.generate(given, plan)
        assert not made["tok_rgb@224"]["input_mask"].any()

    case.serve(
        {"train": step, "generate 8": lambda: generate(8), "generate 25": lambda: generate(25)}
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
