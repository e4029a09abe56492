# %% [markdown]
# # From a tensor to edges
#
# `hallutrace.sparsify` turns an attention tensor into a sparse graph, and `hallutrace.marginals`
# summarises it exactly before anything is dropped. Both work on any array of attention weights;
# no run and no model of hallutrace is needed.

# %%
import numpy as np

import hallutrace

rng = np.random.default_rng(0)
logits = np.where(np.tri(64), rng.normal(size=(8, 64, 64)) * 3, -np.inf)
attention = np.exp(logits - logits.max(-1, keepdims=True))
attention /= attention.sum(-1, keepdims=True)
attention = attention.astype("float32")
attention.shape  # heads, queries, keys

# %% [markdown]
# ## Keep what matters
#
# `top_k`, `min_weight` and `top_mass` are rules for each row on its own; those given must all hold.
# `heads="mean"` and `"max"` combine the heads first, `"each"` keeps a graph per head.

# %%
edges = hallutrace.sparsify(attention, top_k=8)
print(edges)
print("share of each row's weight that was kept:", edges.retained.mean().round(3))

# %%
by_mass = hallutrace.sparsify(attention, top_mass=0.9, heads="each")
print(by_mass)

# %% [markdown]
# ## Take the edges elsewhere
#
# An edge points from the key to the query, the way information flows.

# %%
edge_index, weight = edges.to_torch()
print("PyTorch Geometric:", tuple(edge_index.shape), tuple(weight.shape))
print("scipy:", edges.to_scipy().shape)
dense = edges.to_dense()
assert (dense > 0).sum() == weight.numel()

# %% [markdown]
# ## Exact summaries of the whole matrix
#
# Marginals see every weight, so they do not depend on the rules above.

# %%
exact = hallutrace.marginals(attention, segments=[1, 40])
print("entropy in nats", exact.entropy.shape, exact.entropy.mean().round(3))
print("weight on the segments [0, 1), [1, 40), [40, 64):", exact.mass.mean((0, 1)).round(3))
