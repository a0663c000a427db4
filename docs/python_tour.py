# A tour of `import multimodal as mm` as notebook cells: open it in an editor that supports `# %%`, or run it as a script.
#   python docs/python_tour.py                                                    after `make demo`, from the same folder
#   python docs/python_tour.py runs/demo/topic --shards runs/demo/shards/fluent --queries "red heart" "cat + heart"
# It does not change these boxes.

# %% The boxes: a family's folder with run, export and store, and the shard set that they were made from
import argparse
import sys

import numpy as np
from PIL import Image

import multimodal as mm

parser = argparse.ArgumentParser()
parser.add_argument("folder", nargs="?", default="runs/demo/wordvec")
parser.add_argument("--shards", default="runs/demo/shards/fluent")
parser.add_argument("--queries", nargs="+", default=["red heart", "woman + scientist - man"])
given = parser.parse_args([] if "ipykernel" in sys.modules else None)

run, model, store = (mm.open(f"{given.folder}/{name}") for name in ("run", "export", "store"))
shards = mm.open(given.shards)
for box in (shards, run, model, store):
    print(box)

# %% A shard set is a list of pairs
pair = shards[7]
print(pair.name, pair.texts, pair.picture.size)
train, test = shards.part("train"), shards.part("test")
print(train, test, sep="\n")
assert not set(train.ids) & set(test.ids)

# %% A run holds its settings and its figures
print(run.best)
print(run.config["model"]["objective"]["class_path"], run.checkpoint.name)

# %% Hits are displayed in a notebook: end a cell with `store.search("...")`
for query in given.queries:
    hits = store.search(query, k=5)
    print(query, [hit.name for hit in hits])

# %% A hit has a picture: its thumbnail, or the whole picture once the store is attached to its set
print(hits[0].image.size)
store.attach(shards)
print(hits[0].image.size)

# %% A picture has the same row in any form
as_array = np.asarray(pair.picture)
rows = model.encode_image([pair.picture, pair.image, as_array, Image.fromarray(as_array)])
assert (rows == rows[0]).all()

# %% Which text belongs to the picture? Its own, among the texts of ten others
others = shards.part("test")[:10]
texts = [pair.texts[0], *(other.texts[0] for other in others)]
scores = model.similarity(rows[:1], model.encode_text(texts))[0]
for at in scores.argsort()[::-1][:3]:
    print(f"{scores[at]:+.3f} {texts[at]}")

# %% A query that starts from a picture and adds words
hits = store.search(f"image:it + {given.queries[0]}", images={"it": pair.picture}, model=model, k=5)
print([hit.name for hit in hits])
hits  # noqa: B018  shown by a notebook
