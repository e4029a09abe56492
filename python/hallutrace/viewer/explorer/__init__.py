"""The explorer: a local server that shows runs, answers questions and follows what grows."""
