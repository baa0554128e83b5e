"""Supervised fine-tuning: loss, optimizer, state and the one pure step."""
