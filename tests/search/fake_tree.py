"""Runs without a model: what a step holds follows from its problem and the ordinals on its path alone."""

import zlib
from typing import NamedTuple

import numpy as np

from s1_jax.data.chat import ANSWER_START, THINK_START
from s1_jax.model.reward import REWARD_MODELS
from tests.tokenizer import SPECIALS, byte_tokenizer

OUTCOME, PROCESS = "Qwen2ForSequenceClassification", "Qwen2ForProcessRewardModel"
TOKENIZER = byte_tokenizer((*SPECIALS, "<extra_0>"))
STEP_END = TOKENIZER.convert_tokens_to_ids("<extra_0>")
ANSWERS = ("7", "07", "8", "9", "x + 1", "x  + 1", "")
OPENING = f"{THINK_START}\n"


class Step(NamedTuple):
    text: str
    num_tokens: int
    num_thinking_tokens: int
    ended: bool


class World:
    """One problem's steps. With `whole` a step is a whole run, of several paragraphs."""

    def __init__(self, seed, problem, ends=0.3, deepest=7, whole=False):
        self.seed, self.problem, self.ends, self.deepest, self.whole = seed, problem, ends, deepest, whole
        self.question = f"What is {problem}?"
        self._steps = {}

    def step(self, path):
        """The last of the ordinals' steps."""
        if path not in self._steps:
            self._steps[path] = self._make(path)
        return self._steps[path]

    def _make(self, path):
        rng = np.random.default_rng([self.seed, self.problem, *path])
        tokens, word = int(rng.integers(1, 9)), f"step {rng.integers(1000)} of {len(path)}"
        if not self.whole and rng.random() >= self.ends and len(path) < self.deepest:
            return Step(f"{word}\n\n", tokens, tokens, False)
        before = "".join(f"part {rng.integers(1000)}\n\n" for _ in range(rng.integers(4) if self.whole else 0))
        answer = f"Answer: {ANSWERS[rng.integers(len(ANSWERS))]}"
        return Step(f"{before}{word}\n{ANSWER_START}\n{answer}<|im_end|>", tokens + 2, tokens, True)

    def text(self, path):
        return OPENING + "".join(self.step(path[: i + 1]).text for i in range(len(path)))


class FakeTree:
    """Decoding's tree of runs over worlds; steps become whole by lot. What it is asked against its rules fails."""

    def __init__(self, worlds, no_room=(), rows=4, pace=0.3, seed=0):
        self.worlds, self.no_room = worlds, no_room  # roots that have ended before they could grow
        self.rows, self.pace, self._rng = rows, pace, np.random.default_rng(seed)
        self.roots = list(range(len(worlds)))
        self._paths = [()] * len(worlds)  # by node
        self._parents, self._worlds = [None] * len(worlds), list(worlds)
        self._made = {id(world): 0 for world in worlds}
        self._pruned = set()
        self._growing = []  # the first `rows` of them in rows of the batch
        self.planted = []  # how many at a time

    def plant(self, parents):
        children = [self._child(parent) for parent in parents]
        self._growing += children
        self.planted += [len(children)] if children else []
        return children

    def grow(self):
        whole = [node for node in self._growing[: self.rows] if self._rng.random() < self.pace]
        self._growing = [node for node in self._growing if node not in whole]
        return whole[::-1]

    @property
    def hungry(self):
        return len(self._growing) < self.rows

    def _child(self, parent):
        assert parent not in self._pruned and not self.ended(parent)
        world = self._worlds[parent]
        self._made[id(world)] += 1
        self._paths.append((*self._paths[parent], self._made[id(world)]))
        self._parents.append(parent)
        self._worlds.append(world)
        return len(self._paths) - 1

    def parent(self, node):
        return self._parents[node]

    def name(self, node):
        return f"problem {node}"

    def ended(self, node):
        return self._step(node).ended if node >= len(self.worlds) else node in self.no_room

    def text(self, node):
        return self._worlds[node].text(self._paths[node])

    def num_tokens(self, node):
        return self._step(node).num_tokens

    def record(self, node):
        assert self.ended(node)
        world, path = self._worlds[node], self._paths[node]
        thinking = sum(world.step(path[: i + 1]).num_thinking_tokens for i in range(len(path)))
        return {"problem_id": world.problem, "text": self.text(node), "num_thinking_tokens": thinking}

    def prune(self, nodes):
        assert not self._pruned & set(nodes), "pruned twice"
        assert not any(self.ended(node) for node in nodes), "an ended run holds nothing"
        self._pruned |= set(nodes)

    @property
    def left(self):
        """Nodes that could still grow."""
        nodes = range(len(self._paths))
        return [node for node in nodes if node not in self._pruned and not self.ended(node)]

    def _step(self, node):
        assert node not in self._growing, "it is not whole yet"
        return self._worlds[node].step(self._paths[node])


class FakeScorer:
    """Scores that follow from the tokens read: sixteenths, so that there are ties; of an outcome model logits."""

    def __init__(self, architecture):
        self.reward = REWARD_MODELS[architecture]
        self.calls = 0

    def score(self, texts, scored, names=None):
        self.calls += 1
        if self.reward.kind == "process":
            return [[self._score(text[: at + 1]) for at in ends] for text, ends in zip(texts, scored, strict=True)]
        assert all(at == [len(text) - 1] for text, at in zip(texts, scored, strict=True))
        return [self.of_text(text) for text in texts]

    def of_text(self, text):
        ends = [i for i, token in enumerate(text) if token == STEP_END]
        if self.reward.kind == "process":
            assert ends, "no step to score"
            return [self._score(text[: end + 1]) for end in ends]
        assert not ends
        return [8 * self._score(text) - 4]

    def _score(self, tokens):
        return zlib.crc32(np.asarray(tokens, np.int32).tobytes()) % 16 / 16
