"""Searches over many problems at once, which share the decoder's batch and proceed independently of one another.

The nodes that a search asked for are scored when all of them are complete and the decoder has no more work for its free
rows, together with those of other searches that wait for scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import perf_counter

from s1_jax.config import SearchConfig
from s1_jax.errors import UserError
from s1_jax.records import Record, make
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


def search_all(
    tree: Tree,
    config: SearchConfig,
    questions: Sequence[str],
    verifier: Verifier | None,
    extract: Extract,
    progress: Callable[[int], None] | None = None,
    classes: Classes = text_classes,
) -> Iterator[tuple[int, Record]]:
    """Yield the index and the record of each question's search when it is done; question i belongs to root i.

    The nodes of the tree are steps if `config.by_steps`, else whole runs. A record has the fields of the chosen run's
    record (with an empty text if no run has ended), those of `config`, and what the search used
    (`records.schema.SEARCHED`).

    Answers of one class of `classes` count as the same answer in the vote. `progress` is called repeatedly with the
    number of finished searches; an exception in it ends the search. Raises UserError if the method needs another
    reward model, or if a question does not fit into it.
    """
    check(config, verifier)
    method = METHODS[config.method]
    reward = verifier.kind if verifier else None
    waiting = list(range(len(questions)))[::-1]
    running: dict[int, _Problem] = {}
    clock = _Clock()
    done = 0
    while waiting or running:
        while waiting and len(running) < config.problems_at_a_time:
            index = waiting.pop()
            root = tree.roots[index]
            search = method.search(config, root)
            running[index] = problem = _Problem(questions[index], method, search, config.vote, classes, open={root})
            if tree.ended(root):  # the prompt fills the context
                problem.ended[root] = run = tree.record(root)
                problem.outcome = Outcome([Leaf(root, extract(run["text"]), 1.0)], root)
            else:
                problem.advance(tree)
        ready = [problem for problem in running.values() if problem.ready]
        if ready and tree.hungry:
            _score(tree, ready, verifier, extract)
            for problem in ready:
                problem.advance(tree)
        else:
            clock.grow(tree, running.values())
        for index in [index for index, problem in running.items() if problem.outcome]:
            done += 1
            yield index, running.pop(index).record(config, reward)
        if progress is not None:
            progress(done)


def check(config: SearchConfig, verifier: Verifier | None) -> None:
    """Raise UserError if the method cannot work with this reward model, or without one."""
    if config.by_steps and (verifier is None or verifier.kind != "process"):
        given = "set --rewards.process" if verifier is None else "this one scores whole runs"
        raise UserError(f"search.method {config.method} needs a process reward model, which scores steps; {given}")
    if verifier is None and config.vote != "majority":
        raise UserError(f"search.vote {config.vote} needs a reward model; without one, only majority works")


@dataclasses.dataclass
class _Problem:
    """One running search, and the compute that it has used."""

    question: str
    method: Method
    search: Search
    vote: str
    classes: Classes
    open: set[int]  # nodes that may get children; at first the root
    asked: list[int] = dataclasses.field(default_factory=list)  # nodes that the search asked for
    growing: set[int] = dataclasses.field(default_factory=set)  # those of them that are not complete
    found: list[Node] | None = None  # the complete nodes for the search; None before its first request
    outcome: Outcome | None = None
    ended: dict[int, Record] = dataclasses.field(default_factory=dict)
    tokens: dict[int | None, int] = dataclasses.field(default_factory=dict)  # of each node's whole path
    read_tokens: dict[int | None, int] = dataclasses.field(default_factory=dict)  # of each node's reward text
    used: Record = dataclasses.field(default_factory=lambda: dict.fromkeys(make.USED, 0))

    @property
    def ready(self) -> bool:
        """Whether all nodes that the search asked for are complete."""
        return self.outcome is None and not self.growing

    def advance(self, tree: Tree) -> None:
        """Let the search ask for more nodes or end, and prune nodes that it cannot ask for any more."""
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
        """Count nodes that are now complete, keep the records of ended ones, and return their number of tokens."""
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
        """Prepare the nodes that the search asked for, and return how many tokens the reward model read for them."""
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

    def record(self, config: SearchConfig, reward: str | None) -> Record:
        """Return the record of a search that has ended."""
        assert self.outcome is not None
        chosen = self.outcome.chosen
        run = make.decoded() if chosen is None else self.ended[chosen]
        leaves = [(leaf.answer, leaf.weight) for leaf in self.outcome.leaves]
        return make.searched(run, search=config, reward=reward, leaves=leaves, used=self.used)


@dataclasses.dataclass
class _Clock:
    """Clock that attributes the decoder's time to problems."""

    seconds: float = 0.0  # not attributed yet, because no step has ended since

    def grow(self, tree: Tree, problems: Iterable[_Problem]) -> None:
        """Continue to decode, and attribute the time to the problems whose nodes completed."""
        started = perf_counter()
        nodes = set(tree.grow())
        found = [(problem, problem.count(tree, sorted(nodes & problem.growing))) for problem in problems if nodes]
        self.seconds += perf_counter() - started
        if found:
            _share_out("decoding_seconds", self.seconds, found)
            self.seconds = 0.0


def _score(tree: Tree, problems: Sequence[_Problem], verifier: Verifier | None, extract: Extract) -> None:
    """Score the nodes that the problems asked for and prepare them for their searches."""
    started = perf_counter()
    verdicts = {} if verifier is None else _verdicts(tree, problems, verifier)
    read = [(problem, problem.take(tree, verdicts, extract)) for problem in problems]
    if verifier is not None:
        _share_out("reward_seconds", perf_counter() - started, read)


def _verdicts(tree: Tree, problems: Sequence[_Problem], verifier: Verifier) -> dict[int, Verdict]:
    """Score all new nodes with a process reward model, or the ended ones with an outcome reward model."""
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
    """Add to each problem a fraction of the time, in proportion to its tokens, or equally if there are none."""
    whole = sum(part for _, part in parts)
    for problem, part in parts:
        problem.used[name] += seconds * (part / whole if whole else 1 / len(parts))
