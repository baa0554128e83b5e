"""Searches over many problems at once, each at its own pace: all they ask for shares the batch of the decoder.

What a search has asked for is scored when all of it is there, together with that of others which are as far, once the
decoder has nothing left to fill its rows with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import perf_counter

from s1_jax.config import SearchConfig
from s1_jax.errors import UserError
from s1_jax.records import Record
from s1_jax.records.options import search_fields
from s1_jax.search.beam import beam, dvts
from s1_jax.search.best_of_n import best_of_n
from s1_jax.search.mcts import mcts
from s1_jax.search.nodes import Method, Node, Search, Tree
from s1_jax.search.rebase import rebase
from s1_jax.search.verifier import Verdict, Verifier
from s1_jax.search.vote import Leaf, Outcome, decide
from s1_jax.tasks.classes import Classes, text_classes

Extract = Callable[[str], str | None]
METHODS: dict[str, Method] = {
    "best_of_n": Method(best_of_n),
    "beam": Method(beam),
    "dvts": Method(dvts),
    "rebase": Method(rebase),
    "mcts": Method(mcts, turns_back=True),
}
USED = (
    *("steps", "generated_tokens", "longest_path_tokens", "decoding_seconds"),
    *("reward_tokens", "cut_texts", "reward_seconds"),
)
# what decoding says of a run, where none has ended
NO_RUN: Record = {
    "thinking_token_ids": [],
    "answer_token_ids": [],
    "num_thinking_tokens": 0,
    "num_answer_tokens": 0,
    "end": "none",
    "answer_end": "none",
    "ignores_used": 0,
    "ignored_ends": [],
    "text": "",
    "extracted_answer": None,
    "answer_class": None,
    "gold": None,
    "correct": False,
    "graded_by": "none",
}


def search_all(
    tree: Tree,
    config: SearchConfig,
    questions: Sequence[str],
    verifier: Verifier | None,
    extract: Extract,
    progress: Callable[[int], None] | None = None,
    classes: Classes = text_classes,
) -> Iterator[tuple[int, Record]]:
    """A record of each question's search, with its place, as soon as it is done; `questions` are those of the roots.

    The tree's steps are as `config.by_steps` says, or whole runs. A record has the fields of the chosen run's (of one
    where none has ended: an empty text, not correct), those of `config`, and

        reward                 what scored runs: "outcome", "process" or null
        leaves                 [answer or null, weight] of every run that ended
        steps                  nodes of the tree
        generated_tokens       of all of them
        longest_path_tokens    thinking tokens of the longest run, ended or not
        reward_tokens          of texts for the reward model, the question aside, what a run shares with its parent once
        cut_texts              those too long for it, which it read in part
        decoding_seconds       this problem's share of the decoder's time, by the tokens of the steps that ended
        reward_seconds         the same of the reward model's, by the tokens it read

    Answers that `classes` puts together are one in the vote. `progress` is told how many are done, time and again; what
    it raises ends the search. Raises UserError where the method needs another reward model, or a question does not fit
    it.
    """
    check(config, verifier)
    method = METHODS[config.method]
    known = search_fields(config) | {"reward": verifier.kind if verifier else None}
    waiting = list(range(len(questions)))[::-1]
    running: dict[int, _Problem] = {}
    clock = _Clock()
    done = 0
    while waiting or running:
        while waiting and len(running) < config.problems_at_a_time:
            place = waiting.pop()
            root = tree.roots[place]
            search = method.search(config, root)
            running[place] = problem = _Problem(questions[place], method, search, config.vote, classes, open={root})
            if tree.ended(root):  # the prompt leaves no room
                problem.ended[root] = run = tree.record(root)
                problem.outcome = Outcome([Leaf(root, extract(run["text"]), 1.0)], root)
            else:
                problem.go_on(tree)
        ready = [problem for problem in running.values() if problem.ready]
        if ready and tree.hungry:
            _score(tree, ready, verifier, extract)
            for problem in ready:
                problem.go_on(tree)
        else:
            clock.grow(tree, running.values())
        for place in [place for place, problem in running.items() if problem.outcome]:
            done += 1
            yield place, running.pop(place).record() | known
        if progress is not None:
            progress(done)


def check(config: SearchConfig, verifier: Verifier | None) -> None:
    """Raises UserError where the method cannot do with this reward model, or with none."""
    if config.by_steps and (verifier is None or verifier.kind != "process"):
        given = "none was given" if verifier is None else "this one scores whole runs"
        raise UserError(f"search.method {config.method} needs a process reward model, which scores steps; {given}")
    if verifier is None and config.vote != "majority":
        raise UserError(f"search.vote {config.vote} needs a reward model; without one there is majority alone")


@dataclasses.dataclass
class _Problem:
    """One search in course, and what it has used."""

    question: str
    method: Method
    search: Search
    vote: str
    classes: Classes
    open: set[int]  # nodes that may grow on, at first the root
    asked: list[int] = dataclasses.field(default_factory=list)  # nodes that it waits for
    growing: set[int] = dataclasses.field(default_factory=set)  # of these, such as are not there yet
    found: list[Node] | None = None  # what came of it; none: nothing was asked yet
    outcome: Outcome | None = None
    ended: dict[int, Record] = dataclasses.field(default_factory=dict)
    tokens: dict[int | None, int] = dataclasses.field(default_factory=dict)  # of each node's whole path
    read_tokens: dict[int | None, int] = dataclasses.field(default_factory=dict)  # of its text for the reward model
    used: Record = dataclasses.field(default_factory=lambda: dict.fromkeys(USED, 0))

    @property
    def ready(self) -> bool:
        """Whether all it has asked for is there."""
        return self.outcome is None and not self.growing

    def go_on(self, tree: Tree) -> None:
        """Lets the search ask again, or end. Nodes that it will not ask for are pruned."""
        first = self.found is None
        parents: list[int] = []
        try:
            parents = next(self.search) if self.found is None else self.search.send(self.found)
        except StopIteration as stop:
            self.outcome = decide(stop.value, self.vote, self.classes)
        self.asked = tree.plant(parents)
        self.growing = set(self.asked)
        if self.outcome or not (first or self.method.turns_back):
            gone = self.open if self.outcome else self.open - set(parents)
            tree.prune(sorted(gone))
            self.open = self.open - gone

    def count(self, tree: Tree, nodes: Sequence[int]) -> int:
        """Notes nodes that are whole now, and the records of those that have ended; how many tokens they took."""
        for node in nodes:
            self.tokens[node] = length = self.tokens.get(tree.parent(node), 0) + tree.num_tokens(node)
            if tree.ended(node):
                self.ended[node] = tree.record(node)
                length = self.ended[node]["num_thinking_tokens"]
            self.used["longest_path_tokens"] = max(self.used["longest_path_tokens"], length)
        tokens = sum(map(tree.num_tokens, nodes))
        self.used["steps"] += len(nodes)
        self.used["generated_tokens"] += tokens
        self.growing -= set(nodes)
        return tokens

    def take(self, tree: Tree, verdicts: Mapping[int, Verdict], extract: Extract) -> int:
        """Puts what was asked for ready for the search; how many tokens the reward model had to read of it."""
        self.found, tokens = [], 0
        for node in self.asked:
            verdict = verdicts.get(node)
            if verdict is not None:
                self.read_tokens[node] = verdict.num_tokens
                tokens += max(0, verdict.num_tokens - self.read_tokens.get(tree.parent(node), 0))
                self.used["cut_texts"] += not verdict.whole
            run = self.ended.get(node)
            answer = extract(run["text"]) if run else None
            self.found.append(Node(node, run is not None, verdict.scores if verdict else (), answer))
        self.open |= {node.id for node in self.found if not node.ended}
        self.used["reward_tokens"] += tokens
        return tokens

    def record(self) -> Record:
        """Of a search that has ended."""
        assert self.outcome is not None
        chosen = self.outcome.chosen
        run = NO_RUN if chosen is None else self.ended[chosen]
        return run | {"leaves": [[leaf.answer, leaf.weight] for leaf in self.outcome.leaves]} | self.used


@dataclasses.dataclass
class _Clock:
    """The decoder's time, and whose it was."""

    seconds: float = 0.0  # not shared out yet: no step has ended since

    def grow(self, tree: Tree, problems: Iterable[_Problem]) -> None:
        """Decodes on."""
        started = perf_counter()
        nodes = set(tree.grow())
        found = [(problem, problem.count(tree, sorted(nodes & problem.growing))) for problem in problems if nodes]
        self.seconds += perf_counter() - started
        if found:
            _share_out("decoding_seconds", self.seconds, found)
            self.seconds = 0.0


def _score(tree: Tree, problems: Sequence[_Problem], verifier: Verifier | None, extract: Extract) -> None:
    """Puts what the problems have asked for ready for them, with what the reward model says of it."""
    started = perf_counter()
    verdicts = {} if verifier is None else _verdicts(tree, problems, verifier)
    read = [(problem, problem.take(tree, verdicts, extract)) for problem in problems]
    if verifier is not None:
        _share_out("reward_seconds", perf_counter() - started, read)


def _verdicts(tree: Tree, problems: Sequence[_Problem], verifier: Verifier) -> dict[int, Verdict]:
    """Of all new nodes where the reward model scores steps, else of those that have ended."""
    questions = {
        node: problem.question
        for problem in problems
        for node in problem.asked
        if verifier.kind == "process" or node in problem.ended
    }
    runs = [(question, tree.text(node)) for node, question in questions.items()]
    found = verifier.score(runs, [tree.name(node) for node in questions])
    return dict(zip(questions, found, strict=True))


def _share_out(name: str, seconds: float, parts: Sequence[tuple[_Problem, int]]) -> None:
    """Notes each problem's share of the time, in proportion to its part; the same for all where there are none."""
    whole = sum(part for _, part in parts)
    for problem, part in parts:
        problem.used[name] += seconds * (part / whole if whole else 1 / len(parts))
