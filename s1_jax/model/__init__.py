"""The transformer in Flax NNX: what is computed, and nothing about where."""
