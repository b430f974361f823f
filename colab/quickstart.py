# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/REPOSITORY/blob/main/colab/quickstart.ipynb)
#
# # mm: anything in, anything out
#
# One transformer that draws, says, writes and finds handwritten digits, spoken digits and texts about them. This
# notebook uses the model that ships with mm, then trains a small one. It needs no accelerator.
#
# The first cell finds mm. In Colab it also fetches it, and installs only what Colab lacks: Colab's own JAX and NumPy
# fit its accelerators and stay as they are.

# %%
import os
import runpy
import subprocess
import sys
from pathlib import Path

if "google.colab" in sys.modules and not Path("colab/install.py").exists():
    if not Path("mm-checkout").exists():
        address = "https://github.com/REPOSITORY"
        subprocess.run(["git", "clone", "--quiet", "--depth=1", address, "mm-checkout"], check=True)
    os.chdir("mm-checkout")
    runpy.run_path("colab/install.py", run_name="__main__")
if Path.cwd().name == "colab":  # where Jupyter starts a notebook
    os.chdir("..")
sys.path.insert(0, os.getcwd())

# %% tags=["parameters"]
FOLDER = Path("runs/notebook")  # all that this notebook writes
GALLERY = 1000  # images to search in
STEPS = 1500  # of the training at the end

# %% [markdown]
# ## The model

# %%
import IPython.display as screen
import jax
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

import mm

FOLDER.mkdir(parents=True, exist_ok=True)
model = mm.load()
print("reads and makes:", ", ".join(model.tokenizers))
print(f"{sum(a.size for a in jax.tree.leaves(model.params)):,} parameters on {jax.devices()[0]}")


# %% [markdown]
# Two helpers to look and to listen.


# %%
def show(images, titles=()):
    """A row of pictures."""
    figure, axes = plt.subplots(1, len(images), figsize=(1.3 * len(images), 1.7), squeeze=False)
    for i, axis in enumerate(axes[0]):
        axis.imshow(images[i], cmap="gray_r", vmin=0, vmax=255)
        axis.set_title("\n".join(titles[i].split(", ")) if i < len(titles) else "", fontsize=8)
        axis.axis("off")
    figure.tight_layout()
    plt.show()


def listen(waves):
    """A player for each."""
    for wave in waves:
        screen.display(screen.Audio(wave, rate=8000, normalize=False))


# %% [markdown]
# ## Text to image, text to speech
#
# A text is a word, or a caption: *a [small or large] [thin or thick] digit, [leaning left or right]*; "plain" says
# that it is none of these. Another `seed`, another picture.

# %%
texts = ["seven", "a thick three", "a thin seven, leaning right", "a small zero", "a large two"]
drawn = model.generate("image", text=texts, seed=1)
show(drawn, texts)
show(model.generate("image", text=["a thick three"] * 8, seed=2))

# %%
said = model.generate("speech", text=["three", "seven"], seed=1)
listen(said)

# %% [markdown]
# ## Image to text
#
# `...` asks for a caption, `[MASK]` for a single word.

# %%
captions = model.generate("text", image=drawn, prompt="a ...")
show(drawn, captions)
print(model.generate("text", image=drawn, prompt="[MASK]"))

# %% [markdown]
# ## Speech to image
#
# What was said above, drawn; and with a text beside it, which says how.

# %%
show(model.generate("image", speech=np.repeat(said, 4, axis=0), seed=3))
thick = ["a large thick three", "a large thick seven"]
show(model.generate("image", speech=said, text=thick, seed=3), thick)

# %% [markdown]
# ## A file of your own
#
# A path stands for its file: PNG or JPEG, WAV, FLAC or OGG. A picture may be dark on light, of any size, the digit
# anywhere in it. Draw another one, or name a photo of your handwriting.

# %%
own = FOLDER / "own.png"
paper = Image.new("L", (240, 300), "white")
pen = ImageDraw.Draw(paper)
pen.line([(70, 90), (160, 80), (105, 230)], fill="black", width=16, joint="curve")
paper.save(own)
screen.display(paper.resize((96, 120)))

print("it reads:", *model.generate("text", image=own, prompt="a ..."))
listen(model.generate("speech", image=own, seed=1))

# %% [markdown]
# ## Search
#
# Everything is embedded in one space, so anything finds anything. The gallery: test images of the data that comes
# with the repository, which no part of the model was trained on.

# %%
from data_pipelines.digits import Digits
from mm.config import Data
from mm.data.opened import open_data

test = open_data(Data(source=Digits()), FOLDER / "cache").raw("test")
gallery = test["image"][np.arange(GALLERY)]
z = model.embed(image=gallery)  # one unit vector each


def nearest(count=10, **query):
    """The images of the gallery that are nearest to a query."""
    likeness = z @ model.embed(**query)[0]
    return gallery[np.argsort(-likeness)[:count]]


show(nearest(text="three"))
show(nearest(text="a thin seven, leaning right"))

# %% [markdown]
# By a recording of a real voice; by your own drawing; by several things together.

# %%
recording = test["speech"][np.array([17])]
listen(recording)
show(nearest(speech=recording))
show(nearest(image=own))
show(nearest(text="a large thick five", speech=model.generate("speech", text="five")))

# %% [markdown]
# ## How likely is it?
#
# `score` is the logarithm of p(text | image), in nats. Over the ten words it says what the model takes an image for;
# the rest of the probability belongs to captions.

# %%
words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
image = model.tokenizers["image"].read_file(own)
log_p = model.score("text", words, image=np.stack([image] * len(words)))
figure, axis = plt.subplots(figsize=(6, 1.8))
axis.bar(words, np.exp(log_p))
axis.set_ylabel("p(word | own.png)")
plt.show()

# %% [markdown]
# ## Train one yourself
#
# The experiment of `configs/quickstart.py`, made small and short. Before it trains, its data are tokenized; when it has
# trained, it is evaluated. Stop it as you like: the same cell goes on from its last checkpoint. Any field can be changed
# like this, or on the command line (`--config.steps=5000`).

# %%
from configs import quickstart
from mm import workdir
from mm.train import Trainer

exp = quickstart.get_config("smoke")
exp.name = "notebook"
exp.steps, exp.optim.warmup, exp.log_every = STEPS, min(50, STEPS), max(STEPS // 60, 1)
exp.eval_every = exp.save_every = max(STEPS // 6, 1)
exp.task.model.encoder_layers = exp.task.model.decoder_layers = 2

run = FOLDER / "run"
workdir.claim(run, exp)
finished = Trainer(exp, run, cache=FOLDER / "cache").train()

# %% [markdown]
# Its curves, read from `metrics.jsonl`; dots are validation.

# %%
from mm.report.files import read_run

curves = read_run(run).curves
terms = ("masked/image", "masked/speech", "masked/text", "contrast/unimodal")
figure, axes = plt.subplots(1, len(terms), figsize=(12, 2.2))
for axis, term in zip(axes, terms, strict=True):
    axis.plot(*zip(*curves[term], strict=True))
    if term.startswith("masked"):  # the contrast is among a batch, which is larger in validation
        axis.plot(*zip(*curves[f"validation/{term}"], strict=True), "o")
    axis.set_title(term, fontsize=9)
    axis.set_xlabel("step")
figure.tight_layout()
plt.show()

# %% [markdown]
# What it makes of test examples after so little training, from its report. Rows are given, columns are made; red frames mark what a
# judge takes for another digit. The whole page, with sounds, neighbours and every figure, is
# `runs/notebook/run/report/index.html`.

# %%
screen.display(screen.Image(run / "report" / "any_to_any.png"))
small = mm.load(run)
show(small.generate("image", text=texts, seed=1), texts)

# %% [markdown]
# ## Where to go on
#
# - `python -m mm.main --config configs/quickstart.py`: the whole of it, some minutes on a CPU. `README.md` has its figures.
# - `docs/your_data.md`: a folder of your own pictures, sounds and captions, from check to retrieval.
# - `python -m mm.main --config configs/quickstart.py --help`: every setting.
# - `docs/architecture.md`: how it works, and what taught it. `CONTRIBUTING.md`: a new modality, a new objective.
