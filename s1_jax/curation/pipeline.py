"""The stages of s1K in their order."""

from __future__ import annotations

from s1_jax.curation.stages import Stage

STAGES: tuple[Stage, ...] = ()
