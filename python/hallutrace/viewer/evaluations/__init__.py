"""The evaluations of a run: where they lie, what their files hold, and what they say."""
