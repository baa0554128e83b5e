"""Qwen2.5 in Flax NNX: what is computed, and nothing about where."""
