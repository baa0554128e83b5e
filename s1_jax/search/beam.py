"""Beam search over steps, guided by a process reward model (arXiv 2408.03314), and its diverse variant DVTS."""

from __future__ import annotations

from s1_jax.config import SearchConfig
from s1_jax.search.nodes import Node, Search, best_first, levels


def beam(config: SearchConfig, root: int) -> Search:
    """Grow `width` candidates in each step and keep the best `width / branch` unfinished ones as the next beams.

    Candidates are ranked by their last step's score. The next `width` children are divided evenly among the beams, and
    the best beams get the remainder; in the first step all children are the root's. A candidate whose run has ended is
    a leaf whatever its score, and the search ends once there are `width` leaves. This is Hugging Face's
    search-and-learn with its n as `width` and its beam_width as `branch`; that continues past n ended runs, but votes
    on the first n only.
    """
    beams, leaves = [root], list[Node]()
    for _ in levels(config):
        share, left = divmod(config.width, len(beams))
        found = best_first((yield [beam for i, beam in enumerate(beams) for _ in range(share + (i < left))]))
        leaves += [node for node in found if node.ended]
        beams = [node.id for node in found if not node.ended][: max(1, config.width // config.branch)]
        if not beams or len(leaves) >= config.width:
            break
    return [node.leaf(config) for node in leaves[: config.width]]


def dvts(config: SearchConfig, root: int) -> Search:
    """Run diverse verifier tree search: `width / branch` independent trees, each a beam search with one beam.

    As in Hugging Face's search-and-learn (its n is `width`, its beam_width `branch`), a tree is done when its best run
    has ended, and its leaves are the runs that ended in that step. There, the unfinished siblings of that step vote
    too, for the last number in their text; here, a run without an answer has no vote.
    """
    beams, leaves = [root] * (config.width // config.branch), list[Node]()
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
