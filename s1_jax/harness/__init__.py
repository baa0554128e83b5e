"""The model `s1_jax` of EleutherAI's lm-evaluation-harness: its arguments, generation keywords, and log-likelihoods."""
