"""The Qwen2.5 dense models by their hub ids, so that a run can be planned without downloading one.

Source: the `config.json` of each on the hub. A base model and its -Instruct differ in nothing that costs time or
memory; the lengths are those of -Instruct.
"""

from __future__ import annotations

from s1_jax.config import ModelConfig

# hidden_size, intermediate_size, layers, query heads, kv heads, vocab_size, tied embeddings
_SIZES = {
    "0.5B": (896, 4864, 24, 14, 2, 151936, True),
    "1.5B": (1536, 8960, 28, 12, 2, 151936, True),
    "3B": (2048, 11008, 36, 16, 2, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 152064, False),
    "14B": (5120, 13824, 48, 40, 8, 152064, False),
    "32B": (5120, 27648, 64, 40, 8, 152064, False),
    "72B": (8192, 29568, 80, 64, 8, 152064, False),
}


def _config(size: str) -> ModelConfig:
    D, F, L, N, K, V, tied = _SIZES[size]
    return ModelConfig(
        vocab_size=V,
        hidden_size=D,
        intermediate_size=F,
        num_hidden_layers=L,
        num_attention_heads=N,
        num_key_value_heads=K,
        max_position_embeddings=32768,
        rope_theta=1000000.0,
        tie_word_embeddings=tied,
    )


QWEN2_5: dict[str, ModelConfig] = {
    **{f"Qwen/Qwen2.5-{size}{suffix}": _config(size) for size in _SIZES for suffix in ("", "-Instruct")},
    **{f"simplescaling/{name}-32B": _config("32B") for name in ("s1", "s1.1")},  # fine-tuned, and nothing else changed
}
