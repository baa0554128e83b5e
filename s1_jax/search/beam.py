"""Beam search over steps, guided by a process reward model (arXiv 2408.03314), and its more diverse relative."""

from __future__ import annotations

from s1_jax.config import SearchConfig
from s1_jax.search.nodes import Search, best_first, levels


def beam(config: SearchConfig, root: int) -> Search:
    """Of `width` beams each gets `branch` children, and the `width` best by their last step are the next beams.

    A beam whose run has ended is a leaf and keeps its place, so that fewer go on. The root gets all children of the
    first level.
    """
    beams, leaves = [root] * config.width, []
    for _ in levels(config):
        if not beams:
            break
        found = yield [beam for beam in beams for _ in range(config.branch)]
        kept = best_first(found)[: len(beams)]
        leaves += [node for node in kept if node.ended]
        beams = [node.id for node in kept if not node.ended]
    return [node.leaf(config) for node in leaves]


def dvts(config: SearchConfig, root: int) -> Search:
    """Diverse verifier tree search: `width / branch` trees that know nothing of one another, each a beam of one.

    As in Hugging Face's search-and-learn (its n is `width`, its beam_width `branch`): a tree is done when its best run
    has ended, and its leaves are all runs that ended in that step.
    """
    beams, leaves = [root] * (config.width // config.branch), []
    for _ in levels(config):
        if not beams:
            break
        found = yield [beam for beam in beams for _ in range(config.branch)]
        following = []
        for i in range(len(beams)):
            siblings = found[i * config.branch : (i + 1) * config.branch]
            best = best_first(siblings)[0]
            if best.ended:
                leaves += [node for node in siblings if node.ended]
            else:
                following.append(best.id)
        beams = following
    return [node.leaf(config) for node in leaves]
