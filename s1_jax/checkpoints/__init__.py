"""Weights and training state on disk: `hf` (safetensors in and out) and `orbax` (training state)."""
