"""A model's attention, layer by layer, in one forward pass."""
