# %% [markdown]
# # From a run to a detector
#
# The small model in the package answers questions about a made-up world, half of which it has never
# heard of. Its answers are traced, labelled and used to fit a detector. This needs no GPU, no
# network and a minute.

# %%
import hallutrace
from hallutrace.detect import load, load_examples, make
from hallutrace.detect.metrics import auroc
from hallutrace.labels import label
from hallutrace.splits import folds

QUESTIONS = 200
summary = hallutrace.extract(hallutrace.ExtractConfig(questions=f"demo:{QUESTIONS}", out="run"))
print(f"{summary.traces} traces in {summary.folder}")

# %% [markdown]
# ## What a trace holds

# %%
run = hallutrace.open("run")
trace = run[0]
print("Q", trace.question)
print("A", trace.answer, "| right:", trace.references)
print("attention of layer 2:", trace.layer(2))
print("hidden states of layer 3:", trace.hidden(3).shape)
print("entropy of attention:", trace.marginals.entropy.shape)
print("log-probability of each answer token:", trace.logprob.round(2))

# %% [markdown]
# ## Label the answers
#
# An answer is right if it contains a reference. Other protocols lie beside it.

# %%
print(label("run", by="contains"))

# %% [markdown]
# ## Fit and test
#
# Splits keep the questions of one group together. Choices are made on the validation part, and the
# test part is scored once.

# %%
examples = load_examples(run, "contains")
split = folds(examples.labels, examples.groups, count=2, seed=0)[0]
train, validation, test = (
    examples.take(part) for part in (split.train, split.validation, split.test)
)
for name in ("length", "perplexity", "linear-probe"):
    detector = make(name)
    detector.fit(train, validation)
    print(f"{name:14} AUROC {auroc(detector.scores(test), test.labels):.3f}")

# %% [markdown]
# ## Keep it

# %%
detector.save("detectors/probe")  # JSON and safetensors, no pickle
print(load("detectors/probe").score(trace))
