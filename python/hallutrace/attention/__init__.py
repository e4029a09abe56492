"""Sparsification of attention matrices into edges, and exact marginals."""
