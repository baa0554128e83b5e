"""Published dense models by their hub ids, so that a run can be planned without downloading one.

Source: the `config.json` of each on the hub. A base model and its -Instruct differ in nothing that costs time or
memory; the lengths of Qwen2.5's are those of -Instruct.
"""

from __future__ import annotations

from typing import Any

from s1_jax.config import Llama3Scaling, ModelConfig

# hidden_size, intermediate_size, layers, query heads, kv heads, head_dim, vocab_size, tied embeddings
_QWEN2_5 = {
    "0.5B": (896, 4864, 24, 14, 2, 64, 151936, True),
    "1.5B": (1536, 8960, 28, 12, 2, 128, 151936, True),
    "3B": (2048, 11008, 36, 16, 2, 128, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 128, 152064, False),
    "14B": (5120, 13824, 48, 40, 8, 128, 152064, False),
    "32B": (5120, 27648, 64, 40, 8, 128, 152064, False),
    "72B": (8192, 29568, 80, 64, 8, 128, 152064, False),
}
_QWEN3 = {
    "0.6B": (1024, 3072, 28, 16, 8, 128, 151936, True),
    "1.7B": (2048, 6144, 28, 16, 8, 128, 151936, True),
    "4B": (2560, 9728, 36, 32, 8, 128, 151936, True),
    "8B": (4096, 12288, 36, 32, 8, 128, 151936, False),
    "14B": (5120, 17408, 40, 40, 8, 128, 151936, False),
    "32B": (5120, 25600, 64, 64, 8, 128, 151936, False),
}
_LLAMA3 = {
    "3.1-8B": (4096, 14336, 32, 32, 8, 128, 128256, False),
    "3.1-70B": (8192, 28672, 80, 64, 8, 128, 128256, False),
    "3.2-1B": (2048, 8192, 16, 32, 8, 64, 128256, True),
    "3.2-3B": (3072, 8192, 28, 24, 8, 128, 128256, True),
}
_R1_QWEN = {"1.5B": (*_QWEN2_5["1.5B"][:-1], False)} | {size: _QWEN2_5[size] for size in ("7B", "14B", "32B")}


def _config(sizes: tuple[Any, ...], **others: Any) -> ModelConfig:
    D, F, L, N, K, H, V, tied = sizes
    return ModelConfig(
        vocab_size=V,
        hidden_size=D,
        intermediate_size=F,
        num_hidden_layers=L,
        num_attention_heads=N,
        num_key_value_heads=K,
        head_dim=H,
        tie_word_embeddings=tied,
        **others,
    )


def _qwen2(sizes: tuple[Any, ...], length: int = 32768, theta: float = 1e6, eps: float = 1e-6) -> ModelConfig:
    return _config(sizes, max_position_embeddings=length, rope_theta=theta, rms_norm_eps=eps)


def _qwen3(size: str, length: int) -> ModelConfig:
    return _config(_QWEN3[size], model_type="qwen3", max_position_embeddings=length, rope_theta=1e6)


def _llama3(size: str) -> ModelConfig:
    scaling = Llama3Scaling(32.0 if size.startswith("3.2") else 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0)
    others: dict[str, Any] = {"max_position_embeddings": 131072, "rope_theta": 5e5, "rms_norm_eps": 1e-5}
    return _config(_LLAMA3[size], model_type="llama", rope_scaling=scaling, **others)


PUBLISHED: dict[str, ModelConfig] = {
    **{f"Qwen/Qwen2.5-{size}{suffix}": _qwen2(_QWEN2_5[size]) for size in _QWEN2_5 for suffix in ("", "-Instruct")},
    **{f"simplescaling/{name}-32B": _qwen2(_QWEN2_5["32B"]) for name in ("s1", "s1.1")},
    "Qwen/QwQ-32B": _qwen2(_QWEN2_5["32B"], 40960, eps=1e-5),
    **{
        f"deepseek-ai/DeepSeek-R1-Distill-Qwen-{size}": (
            _qwen2(_R1_QWEN[size], 131072, theta=1e4)  # of Qwen2.5-Math
            if size in ("1.5B", "7B")
            else _qwen2(_R1_QWEN[size], 131072, eps=1e-5)
        )
        for size in _R1_QWEN
    },
    **{f"Qwen/Qwen3-{size}": _qwen3(size, 40960) for size in _QWEN3},
    **{f"Qwen/Qwen3-{size}-Base": _qwen3(size, 32768) for size in _QWEN3 if size != "32B"},
    **{f"meta-llama/Llama-{size}{suffix}": _llama3(size) for size in _LLAMA3 for suffix in ("", "-Instruct")},
    "meta-llama/Llama-3.3-70B-Instruct": _llama3("3.1-70B"),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": _llama3("3.1-8B"),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": _llama3("3.1-70B"),
}
