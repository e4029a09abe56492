"""The pipeline: from questions to the committed shards of a run."""
