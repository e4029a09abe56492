# %% [markdown]
# # Where the figures of a paper come from
#
# Every figure is made from traces alone; the model is not needed again. Here: where in the model
# hallucinated and right answers differ, and what a probe on each layer reaches.

# %%
import numpy as np
from matplotlib import pyplot as plt

import hallutrace
from hallutrace.detect import load_examples, make
from hallutrace.detect.metrics import auroc
from hallutrace.labels import label
from hallutrace.splits import folds

hallutrace.extract(hallutrace.ExtractConfig(questions="demo:200", out="run"))
label("run", by="contains")
run = hallutrace.open("run")
examples = load_examples(run, "contains")
layers = run[0].hidden_layers
print(f"{len(examples)} labelled traces, base rate {examples.labels.mean():.3f}")

# %% [markdown]
# ## Entropy of attention, layer by layer
#
# The mean over heads and answer rows, of hallucinated and of right answers.

# %%
entropy = np.array([trace.marginals.entropy.mean((1, 2)) for trace in examples])
for value, name in ((1, "hallucinated"), (0, "right")):
    plt.plot(entropy[examples.labels == value].mean(0), marker="o", label=name)
plt.xlabel("layer")
plt.ylabel("entropy of attention [nats]")
plt.legend()
plt.savefig("entropy.svg")

# %% [markdown]
# ## A probe on each layer
#
# A detector is fitted on the training part, and tested on groups of questions that it has not seen.

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
