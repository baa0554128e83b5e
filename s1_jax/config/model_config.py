"""Sizes and settings of a Qwen2.5 model, read from and written to Hugging Face's `config.json`.

The fields of `ModelConfig` are the keys of that file. Which keys are read, and what a null or an absent key means,
follows transformers' Qwen2Config.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from s1_jax.config.model_fields import LARGEST, SHOWN, Fields
from s1_jax.config.rope_config import THETA, RopeScaling, read_rope
from s1_jax.errors import UserError

MOST_LAYERS = 10_000  # no model has so many, and a mistyped number would be counted up to before it is found out
MOST_POSITIONS = 10_000_000  # likewise: the decoder has room for as many tokens in each row
ACTIVATIONS = ("silu", "swish")  # two names of one function
WINDOW, WINDOWED_FROM = 4096, 28  # transformers' sliding_window and max_window_layers


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Fields of the `config.json` of a Qwen2.5 dense model that change what is computed."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    rope_theta: float = THETA
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.head_dim % 2:
            raise UserError(
                f"hidden_size {self.hidden_size} over num_attention_heads {self.num_attention_heads} gives heads of "
                f"{self.head_dim}; rotary positions need an even number"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )

    @property
    def head_dim(self) -> int:
        """Return H, the size of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def context_length(self) -> int:
        """Return the number of positions that the model supports, with YaRN where it has it."""
        if (scaling := self.rope_scaling) is None:
            return self.max_position_embeddings
        return max(self.max_position_embeddings, int(scaling.factor * scaling.original_max_position_embeddings))

    @classmethod
    def from_dict(cls, values: Any, source: str = "config.json") -> ModelConfig:
        """Read the contents of a `config.json` written by transformers 4 or 5.

        Raises UserError naming `source`, the file, on settings that are not supported and on values of a wrong type.
        """
        fields = Fields(values, source)
        if (model_type := fields.text("model_type", "qwen2")) != "qwen2":
            raise UserError(
                f"{source}: model_type {model_type[:SHOWN]!r} is not supported; only 'qwen2' (Qwen2.5 dense) is"
            )
        if (activation := fields.text("hidden_act", "silu")) not in ACTIVATIONS:
            raise UserError(f"{source}: hidden_act {activation[:SHOWN]!r} is not supported; Qwen2.5 uses 'silu'")
        if fields.section("quantization_config").values:
            raise UserError(
                f"{source} describes quantized weights (quantization_config), which are not supported; "
                "use the F32, BF16 or F16 release of this model"
            )
        required = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
        if missing := [name for name in required if name not in fields]:
            raise UserError(f"{source} lacks {', '.join(missing)}")
        heads = fields.integer("num_attention_heads")
        sizes: dict[str, Any] = {
            "vocab_size": fields.integer("vocab_size"),
            "hidden_size": fields.integer("hidden_size"),
            "intermediate_size": fields.integer("intermediate_size"),
            "num_hidden_layers": fields.integer("num_hidden_layers", most=MOST_LAYERS),
            "num_attention_heads": heads,
            # null: a kv head for each query head
            "num_key_value_heads": fields.integer("num_key_value_heads", null=heads),
            "max_position_embeddings": fields.integer(
                "max_position_embeddings", cls.max_position_embeddings, most=MOST_POSITIONS
            ),
        }
        others: dict[str, Any] = {
            "rms_norm_eps": float(fields.number("rms_norm_eps", cls.rms_norm_eps, most=1.0)),
            "initializer_range": float(fields.number("initializer_range", cls.initializer_range, most=1000.0)),
        }
        tied = fields.flag("tie_word_embeddings", cls.tie_word_embeddings)
        try:
            config = cls(**sizes, **others, tie_word_embeddings=tied)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        if fields.given("head_dim") and fields.integer("head_dim") != config.head_dim:
            raise UserError(
                f"{source}: head_dim {values['head_dim']} is not hidden_size / num_attention_heads = {config.head_dim}"
            )
        layer_types = _layer_types(fields, config.num_hidden_layers)
        theta, scaling = read_rope(fields, config.head_dim, config.max_position_embeddings, layer_types)
        config = dataclasses.replace(config, rope_theta=theta, rope_scaling=scaling)
        if config.context_length > MOST_POSITIONS:
            raise UserError(f"{source}: rope_scaling stretches the context beyond {MOST_POSITIONS:,} positions")
        _check_attention(fields, layer_types, config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of a `config.json` that transformers 4 and 5 read as this model."""
        values = dataclasses.asdict(self)
        if self.rope_scaling is not None:
            kept = {k: v for k, v in values["rope_scaling"].items() if v is not None and (k, v) != ("truncate", True)}
            values["rope_scaling"] = {"rope_type": "yarn", **kept}
        return {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "use_sliding_window": False,
            **values,
        }


def _window(fields: Fields) -> int | None:
    """Return the number of tokens that a sliding layer sees; None if the window is off."""
    window = fields.integer("sliding_window", WINDOW, least=-LARGEST, null=None)
    return window if fields.flag("use_sliding_window", False) else None


def _layer_types(fields: Fields, layers: int) -> list[str]:
    """Return how each layer attends, stated or derived as in Qwen2Config."""
    begin = fields.integer("max_window_layers", WINDOWED_FROM, least=-LARGEST)
    slides = _window(fields) is not None
    said = fields.texts("layer_types")
    if said is None:
        return ["sliding_attention" if slides and i >= begin else "full_attention" for i in range(layers)]
    if len(said) != layers:
        fields.refuse("layer_types", said, f"it must name each of the {layers} layers (num_hidden_layers)")
    return ["full_attention" if kind == "attention" else kind for kind in said]


def _check_attention(fields: Fields, layer_types: list[str], config: ModelConfig) -> None:
    """Raise UserError if a layer does not see all tokens before it at every length that the model supports."""
    if other := sorted(set(layer_types) - {"full_attention", "sliding_attention"}):
        raise UserError(f"{fields.source}: layer_types has {other[0][:SHOWN]!r}; Qwen2 knows full_attention")
    window = _window(fields)
    if "sliding_attention" in layer_types and (window is None or window < config.context_length):
        raise UserError(
            f"{fields.source}: layer {layer_types.index('sliding_attention')} attends within a sliding window of "
            f"{window} tokens, which is not supported below the model's {config.context_length} positions"
        )
