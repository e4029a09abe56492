"""A run on disk: its folder, its traces, and what is done with finished runs."""
