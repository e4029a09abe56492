"""A report of a run: what it carries, and the formats it is written in."""
