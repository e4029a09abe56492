# %% [markdown]
# # A detector of your own
#
# A detector is a class that scores a trace: higher means more likely hallucinated. Registered under
# a name, it is compared with the others on the same traces, splits and seeds, controls included.

# %%
import numpy as np
from pydantic import Field

import hallutrace
from hallutrace.detect import LinearDetector, Needs, Source, load_examples, make, register
from hallutrace.detect.metrics import auroc
from hallutrace.labels import label
from hallutrace.splits import folds

hallutrace.extract(hallutrace.ExtractConfig(questions="demo:200", out="run"))
label("run", by="contains")
examples = load_examples(hallutrace.open("run"), "contains")

# %% [markdown]
# ## State what it reads, its options and its source


# %%
@register
class EntropyProbe(LinearDetector):
    """Logistic regression on the mean attention entropy of each head over the answer."""

    name = "entropy-probe"
    source = Source("my thesis, chapter 3")
    needs = Needs(marginals=("entropy",))

    class Options(LinearDetector.Options):
        """Which rows of the attention are read."""

        last: int = Field(8, ge=1, description="rows at the end of the answer")

    options: Options

    def feature(self, trace):
        """float32 [layers x heads]."""
        entropy = trace.marginals.entropy[:, :, -self.options.last :]
        return entropy.mean(axis=2).reshape(-1).astype(np.float32)


print(make("entropy-probe", last=4).options)

# %% [markdown]
# ## Beside the controls
#
# All detectors see the same folds. Choices are made on the validation part, and the test part is
# scored once.

# %%
for name in ("length", "perplexity", "entropy-probe"):
    reached = []
    for split in folds(examples.labels, examples.groups, count=3, seed=0):
        detector = make(name)
        detector.fit(examples.take(split.train), examples.take(split.validation))
        test = examples.take(split.test)
        reached.append(auroc(detector.scores(test), test.labels))
    print(f"{name:14} AUROC {np.mean(reached):.3f} (folds {np.round(reached, 3)})")

# %% [markdown]
# In a file of its own, the class takes part in `hallutrace evaluate`, `train`, `score` and `ask` by
# `--plugin my_detector.py`, with intervals and paired tests.
