"""Captures and reduces the attention of a model in one forward pass, and checks exactness."""
