"""Sizes and settings of a model, read from and written to Hugging Face's `config.json`.

The fields of `ModelConfig` are the keys of that file. Which keys are read, and what a null or an absent key means,
follows transformers' Qwen2Config, Qwen3Config and LlamaConfig.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from s1_jax.config.model_fields import LARGEST, SHOWN, Fields
from s1_jax.config.rope_config import THETA, RopeScaling, YarnScaling, read_rope, write_rope
from s1_jax.errors import UserError

MOST_LAYERS = 10_000  # no model has so many, and a mistyped number would be counted up to before it is found out
MOST_POSITIONS = 10_000_000  # likewise: the decoder has room for as many tokens in each row
ACTIVATIONS = ("silu", "swish")  # two names of one function
WINDOW, WINDOWED_FROM = 4096, 28  # transformers' sliding_window and max_window_layers
NO_BIASES = ("attention_bias", "mlp_bias")  # switches of Qwen3 and Llama that no release turns on


class Family(NamedTuple):
    """What one `model_type` computes otherwise than the others, and what its `config.json` may leave out."""

    architecture: str
    qkv_bias: bool = False  # on queries, keys and values
    qk_norm: bool = False  # RMSNorm of each head's queries and keys, before their rotation
    sliding: bool = True  # whether `config.json` may have a sliding window
    head_dim: int | None = None  # None: hidden_size / num_attention_heads
    max_position_embeddings: int = 32768


FAMILIES = {
    "qwen2": Family("Qwen2ForCausalLM", qkv_bias=True),
    "qwen3": Family("Qwen3ForCausalLM", qk_norm=True, head_dim=128),
    "llama": Family("LlamaForCausalLM", sliding=False, max_position_embeddings=2048),
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Fields of the `config.json` of a dense model that change what is computed; `model_type` is one of FAMILIES."""

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
    model_type: str = "qwen2"
    head_dim: int = 0  # H, the size of one attention head; 0 stands for the family's own, which replaces it

    def __post_init__(self) -> None:
        object.__setattr__(self, "head_dim", self.head_dim or self.family.head_dim or self._share_of_a_head())
        if self.head_dim % 2:
            raise UserError(f"attention heads have {self.head_dim} dimensions; rotary positions need an even number")
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )

    def _share_of_a_head(self) -> int:
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        return self.hidden_size // self.num_attention_heads

    @property
    def family(self) -> Family:
        """Return what this `model_type` computes otherwise than the others."""
        return FAMILIES[self.model_type]

    @property
    def context_length(self) -> int:
        """Return the number of positions that the model supports, with YaRN where it has it."""
        scaling = self.rope_scaling
        if not isinstance(scaling, YarnScaling):
            return self.max_position_embeddings
        return max(self.max_position_embeddings, int(scaling.factor * scaling.original_max_position_embeddings))

    @classmethod
    def from_dict(cls, values: Any, source: str = "config.json") -> ModelConfig:
        """Read the contents of a `config.json` written by transformers 4 or 5.

        Raises UserError naming `source`, the file, on settings that are not supported and on values of a wrong type.
        """
        fields = Fields(values, source)
        if (model_type := fields.text("model_type", "qwen2")) not in FAMILIES:
            raise UserError(
                f"{source}: model_type {model_type[:SHOWN]!r} is not supported; "
                f"the dense models {', '.join(FAMILIES)} are"
            )
        family = FAMILIES[model_type]
        if (activation := fields.text("hidden_act", "silu")) not in ACTIVATIONS:
            raise UserError(f"{source}: hidden_act {activation[:SHOWN]!r} is not supported; 'silu' is")
        if not family.qkv_bias and (biases := [name for name in NO_BIASES if fields.flag(name, False)]):
            raise UserError(f"{source}: {biases[0]} true is not supported; the releases of {model_type} have no biases")
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
                "max_position_embeddings", family.max_position_embeddings, most=MOST_POSITIONS
            ),
            "head_dim": fields.integer("head_dim") if fields.given("head_dim") else 0,
        }
        others: dict[str, Any] = {
            "rms_norm_eps": float(fields.number("rms_norm_eps", cls.rms_norm_eps, most=1.0)),
            "initializer_range": float(fields.number("initializer_range", cls.initializer_range, most=1000.0)),
        }
        tied = fields.flag("tie_word_embeddings", cls.tie_word_embeddings)
        try:
            config = cls(**sizes, **others, tie_word_embeddings=tied, model_type=model_type)
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
        layer_types = _layer_types(fields, config.num_hidden_layers) if family.sliding else []
        theta, scaling = read_rope(fields, config.head_dim, config.max_position_embeddings, layer_types)
        config = dataclasses.replace(config, rope_theta=theta, rope_scaling=scaling)
        if config.context_length > MOST_POSITIONS:
            raise UserError(f"{source}: rope_scaling stretches the context beyond {MOST_POSITIONS:,} positions")
        _check_attention(fields, layer_types, config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of a `config.json` that transformers 4 and 5 read as this model."""
        return {
            "architectures": [self.family.architecture],
            "model_type": self.model_type,
            "hidden_act": "silu",
            **({"use_sliding_window": False} if self.family.sliding else {}),
            **dataclasses.asdict(self),
            "rope_scaling": write_rope(self.rope_scaling),
        }


def _window(fields: Fields) -> int | None:
    """Return the number of tokens that a sliding layer sees; None if the window is off."""
    window = fields.integer("sliding_window", WINDOW, least=-LARGEST, null=None)
    return window if fields.flag("use_sliding_window", False) else None


def _layer_types(fields: Fields, layers: int) -> list[str]:
    """Return how each layer attends, stated or derived as in Qwen2Config and Qwen3Config."""
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
        raise UserError(f"{fields.source}: layer_types has {other[0][:SHOWN]!r}; only full_attention is supported")
    window = _window(fields)
    if "sliding_attention" in layer_types and (window is None or window < config.context_length):
        raise UserError(
            f"{fields.source}: layer {layer_types.index('sliding_attention')} attends within a sliding window of "
            f"{window} tokens, which is not supported below the model's {config.context_length} positions"
        )
