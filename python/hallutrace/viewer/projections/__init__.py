"""Hidden states of all traces as points of a plane: made, judged, and kept beside the run."""
