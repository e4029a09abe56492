"""Arrays in, edges and summaries out: what is kept of an attention matrix."""
