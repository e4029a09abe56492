"""Parts of a run: which are compared, how, and where to look next."""
