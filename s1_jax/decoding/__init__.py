"""Decoding under a thinking budget: sampling, budget and decode do not know each other; engine joins them."""
