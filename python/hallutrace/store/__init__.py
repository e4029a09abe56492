"""A run on disk: folder, claims, traces, labels; merging, verification and repair of runs."""
