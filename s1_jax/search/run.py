"""Searches over many problems in lockstep: all they ask for is decoded as one batch and scored as one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter

from s1_jax.config import SearchConfig, UserError
from s1_jax.search.beam import beam, dvts
from s1_jax.search.best_of_n import best_of_n
from s1_jax.search.mcts import mcts
from s1_jax.search.nodes import Method, Node, Record, Search, Tree
from s1_jax.search.rebase import rebase
from s1_jax.search.verifier import Verdict, Verifier
from s1_jax.search.vote import Leaf, Outcome

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
        decoding_seconds       this problem's share of each batch's time, by its tokens
        reward_seconds         the same of the reward model's

    `progress` is told how many are done, time and again; what it raises ends the search. Raises UserError where the
    method needs another reward model, or a question does not fit it.
    """
    check(config, verifier)
    method = METHODS[config.method]
    known = config.to_record() | {"reward": verifier.kind if verifier else None}
    waiting = list(range(len(questions)))[::-1]
    running: dict[int, _Problem] = {}
    done = 0

    def show() -> None:
        if progress is not None:
            progress(done)

    while waiting or running:
        for place, problem in list(running.items()):
            outcome = problem.go_on(tree, keep=method.turns_back)
            if outcome is not None:
                done += 1
                yield place, running.pop(place).record(outcome) | known
        while waiting and len(running) < config.problems_at_a_time:
            place = waiting.pop()
            root = tree.roots[place]
            problem = _Problem(questions[place], method.search(config, root), open={root})
            if tree.ended(root):  # the prompt leaves no room
                problem.ended[root] = run = tree.record(root)
                done += 1
                yield place, problem.record(Outcome([Leaf(root, extract(run["text"]), 1.0)], root)) | known
                continue
            problem.go_on(tree, keep=True)
            running[place] = problem
        if running:
            _grow(tree, list(running.values()), verifier, extract, show)


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
    search: Search
    open: set[int]  # nodes that may grow on, at first the root
    asked: list[int] = dataclasses.field(default_factory=list)
    found: list[Node] | None = None  # what came of it; none: nothing was asked yet
    ended: dict[int, Record] = dataclasses.field(default_factory=dict)
    tokens: dict[int | None, int] = dataclasses.field(default_factory=dict)  # of each node's whole path
    read_tokens: dict[int | None, int] = dataclasses.field(default_factory=dict)  # of its text for the reward model
    used: Record = dataclasses.field(default_factory=lambda: dict.fromkeys(USED, 0))

    def go_on(self, tree: Tree, keep: bool) -> Outcome | None:
        """Lets the search ask again; its outcome where it is done. Nodes that it will not ask for are pruned."""
        outcome = None
        try:
            self.asked = next(self.search) if self.found is None else self.search.send(self.found)
        except StopIteration as stop:
            self.asked, outcome, keep = [], stop.value, False
        gone = set() if keep else self.open - set(self.asked)
        tree.prune(sorted(gone))
        self.open -= gone
        return outcome

    def count(self, tree: Tree, nodes: Sequence[int]) -> int:
        """Notes new nodes, and the records of those that have ended; how many tokens they took."""
        for node in nodes:
            self.tokens[node] = length = self.tokens.get(tree.parent(node), 0) + tree.num_tokens(node)
            if tree.ended(node):
                self.ended[node] = tree.record(node)
                length = self.ended[node]["num_thinking_tokens"]
            self.used["longest_path_tokens"] = max(self.used["longest_path_tokens"], length)
        tokens = sum(map(tree.num_tokens, nodes))
        self.used["steps"] += len(nodes)
        self.used["generated_tokens"] += tokens
        return tokens

    def take(self, tree: Tree, nodes: Sequence[int], verdicts: Mapping[int, Verdict], extract: Extract) -> int:
        """Puts new nodes ready for the search; how many tokens the reward model had to read of them."""
        self.found, tokens = [], 0
        for node in nodes:
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

    def record(self, outcome: Outcome) -> Record:
        run = NO_RUN if outcome.chosen is None else self.ended[outcome.chosen]
        return run | {"leaves": [[leaf.answer, leaf.weight] for leaf in outcome.leaves]} | self.used


def _grow(
    tree: Tree, problems: Sequence[_Problem], verifier: Verifier | None, extract: Extract, show: Callable[[], None]
) -> None:
    """Decodes and scores what the problems have asked for."""
    started = perf_counter()
    nodes = iter(tree.expand([parent for problem in problems for parent in problem.asked], show))
    children = [[next(nodes) for _ in problem.asked] for problem in problems]
    generated = [problem.count(tree, own) for problem, own in zip(problems, children, strict=True)]
    decoded = perf_counter()
    verdicts = {} if verifier is None else _verdicts(tree, problems, children, verifier)
    read = [problem.take(tree, own, verdicts, extract) for problem, own in zip(problems, children, strict=True)]
    ended = perf_counter()
    for problem, tokens, read_tokens in zip(problems, generated, read, strict=True):
        problem.used["decoding_seconds"] += (decoded - started) * _share(tokens, generated)
        problem.used["reward_seconds"] += (ended - decoded) * _share(read_tokens, read) if verifier else 0


def _verdicts(
    tree: Tree, problems: Sequence[_Problem], children: Sequence[Sequence[int]], verifier: Verifier
) -> dict[int, Verdict]:
    """Of all new nodes where the reward model scores steps, else of those that have ended."""
    questions = {
        node: problem.question
        for problem, own in zip(problems, children, strict=True)
        for node in own
        if verifier.kind == "process" or node in problem.ended
    }
    found = verifier.score([(question, tree.text(node)) for node, question in questions.items()])
    return dict(zip(questions, found, strict=True))


def _share(part: int, parts: Sequence[int]) -> float:
    return part / sum(parts) if any(parts) else 1 / len(parts)
