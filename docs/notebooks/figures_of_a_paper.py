# %% [markdown]
# # Where the figures of a paper come from
#
# Every figure is made from traces alone; the model is not needed again. Here: where in the model
# hallucinated and right answers differ, and what a probe on each layer reaches.

# %%
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

import hallutrace
from hallutrace.detect import load_examples, make
from hallutrace.detect.metrics import auroc
from hallutrace.labels import label
from hallutrace.splits import folds
from hallutrace.viewer.figures.drawing import FigureRequest
from hallutrace.viewer.figures.registry import make_figure
from hallutrace.viewer.viewed_run import ViewedRun

hallutrace.extract(hallutrace.ExtractConfig(questions="demo:200", out="run"))
label("run", by="contains")
run = hallutrace.open("run")
examples = load_examples(run, "contains")
layers = run[0].hidden_layers
print(f"{len(examples)} labelled traces, base rate {examples.labels.mean():.3f}")

# %% [markdown]
# ## Where hallucinated and right answers differ
#
# `hallutrace figure` draws the usual figures, and this is the same from Python: entropy of
# attention by layer and head, hallucinated less right, with the heads marked that differ. Its
# numbers are written beside it.

# %%
figure = make_figure("layers-heads", FigureRequest(ViewedRun(run), marginal="entropy"))
print(figure.caption)
figure.write(Path("entropy.svg"), "svg")

# %% [markdown]
# ## A probe on each layer
#
# Other figures are drawn from what the package gives: a detector is fitted on the training part,
# and tested on groups of questions that it has not seen.

# %%
split = folds(examples.labels, examples.groups, count=2, seed=0)[0]
train, validation, test = (
    examples.take(part) for part in (split.train, split.validation, split.test)
)
reached = []
for layer in layers:
    probe = make("linear-probe", layers=[layer])
    probe.fit(train, validation)
    reached.append(auroc(probe.scores(test), test.labels))
plt.figure()
plt.plot(reached, marker="o")
plt.axhline(0.5, color="grey", linewidth=1)
plt.xlabel("layer")
plt.ylabel(f"AUROC on {len(test)} traces")
plt.savefig("probes.svg")
print(np.round(reached, 3))
