"""The methods once more, as their definitions read: one problem at a time, a run's scores from its text as a whole."""

import math
from typing import Any

from s1_jax.data.chat import ANSWER_START
from s1_jax.tasks.answers import extract_answer
from tests.search.fake_tree import OPENING, TOKENIZER


class Twin:
    """A search over one world; a run is its tuple of ordinals."""

    def __init__(self, world, config, scorer):
        self.world, self.config, self.scorer = world, config, scorer
        self.runs, self.leaves, self.known = [], [], {}
        {
            "best_of_n": self.best_of_n,
            "beam": self.beam,
            "dvts": self.dvts,
            "rebase": lambda: self.rebase([((), config.width)], config.width, 0),
            "mcts": self.mcts,
        }[config.method]()

    def child(self, run):
        self.runs.append((*run, len(self.runs) + 1))
        return self.runs[-1]

    def ended(self, run):
        return self.world.step(run).ended

    def answer(self, run):
        return extract_answer(self.world.text(run))

    def paragraphs(self, run):
        text = self.world.text(run).removeprefix(OPENING).replace("<|im_end|>", "").replace(ANSWER_START, "\n\n")
        return [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]

    def scores(self, run):
        if run not in self.known:
            self.known[run] = self.scored(run)
        return self.known[run]

    def scored(self, run):
        """As the card of Qwen2.5-Math-PRM and that of Qwen2.5-Math-RM do it."""
        if self.scorer is None:
            return [1.0]
        process, steps = self.scorer.reward.kind == "process", self.paragraphs(run)
        response = "".join(step + "<extra_0>" for step in steps) if process else "\n\n".join(steps)
        if not process and self.config.reads == "answer":
            response = steps[-1]
        chat = [{"role": "user", "content": self.world.question}, {"role": "assistant", "content": response}]
        found = self.scorer.of_text(TOKENIZER.encode(TOKENIZER.apply_chat_template(chat, tokenize=False)))
        return found if process else [1 / (1 + math.exp(-found[0]))]

    def score(self, run):
        return self.scores(run)[-1]

    def weight(self, run):
        scores = self.scores(run)
        total = 1.0
        for score in scores:
            total *= score
        how = self.config.path_score
        return {"last": scores[-1], "min": min(scores), "mean": sum(scores) / len(scores), "product": total}[how]

    def best(self, runs):
        """The best, the first of equals."""
        found = runs[0]
        for run in runs[1:]:
            if self.score(run) > self.score(found):
                found = run
        return found

    def too_deep(self, depth):
        return self.config.max_steps is not None and depth >= self.config.max_steps

    def best_of_n(self):
        self.leaves = [self.child(()) for _ in range(self.config.width)]

    def beam(self):
        """search-and-learn's rule, n = width, M = branch: n candidates a step, n / M of them go on, n ended ones vote.

        Candidates are dealt to the beams like cards, the best beam first.
        """
        n, kept, depth = self.config.width, [()], 0
        while kept and len(self.leaves) < n and not self.too_deep(depth):
            hands = dict.fromkeys(kept, 0)
            for card in range(n):
                hands[kept[card % len(kept)]] += 1
            candidates = [self.child(run) for run, cards in hands.items() for _ in range(cards)]
            kept, depth = [], depth + 1
            while candidates:
                best = self.best(candidates)
                candidates.remove(best)
                if not self.ended(best):
                    kept.append(best)
                elif len(self.leaves) < n:
                    self.leaves.append(best)
            while len(kept) > 1 and len(kept) * self.config.branch > n:
                kept.pop()

    def dvts(self):
        """Level by level, since ordinals count over all subtrees; each knows itself alone."""
        subtrees = dict.fromkeys(range(self.config.width // self.config.branch), ())
        depth = 0
        while subtrees and not self.too_deep(depth):
            for i, run in list(subtrees.items()):
                siblings = [self.child(run) for _ in range(self.config.branch)]
                subtrees[i] = self.best(siblings)
                if self.ended(subtrees[i]):
                    del subtrees[i]
                    self.leaves += [sibling for sibling in siblings if self.ended(sibling)]
            depth += 1

    def rebase(self, parents, width, depth):
        """`parents` with how many children each gets; the formulas of the reference, walked down."""
        if not parents or width <= 0 or self.too_deep(depth):
            return
        level = [self.child(run) for run, count in parents for _ in range(count)]
        level.sort(key=self.score, reverse=True)
        candidates = []
        for run in level:
            if self.ended(run):
                width -= 1
                self.leaves.append(run)
            else:
                candidates.append((run, math.exp((self.score(run) - 1) / self.config.score_temperature)))
        left, following = width, []
        for i, (run, weight) in enumerate(candidates):
            if left <= 0:
                break
            count = min(left, math.ceil(left * weight / sum(other for _, other in candidates[i:]) - 1e-9))
            following.append((run, count))
            left -= count
        self.rebase(following, width, depth + 1)

    def mcts(self):
        """Statistics from the list of all rollouts, anew at every step."""
        config = self.config
        values: dict[Any, float] = {}
        rollouts: list[Any] = []

        def visits(run):
            return sum(rollout[: len(run)] == run for rollout in rollouts)

        def mean(run):
            through = [values[rollout] for rollout in rollouts if rollout[: len(run)] == run]
            return (self.score(run) + sum(through)) / (1 + len(through))

        def children(run):
            return [other for other in self.runs if len(other) == len(run) + 1 and other[:-1] == run]

        for _ in range(config.width):
            run: Any = ()
            descending = True
            while not (run and self.ended(run)) and not self.too_deep(len(run)):
                known = children(run)
                limit = math.ceil(config.widening * (visits(run) + 1) ** config.widening_power)
                if descending and len(known) >= limit:
                    bonus = math.log(visits(run))
                    best, highest = None, -math.inf
                    for child in known:
                        value = mean(child) + config.exploration * math.sqrt(bonus / visits(child))
                        if value > highest:
                            best, highest = child, value
                    run = best
                    continue
                descending = False
                if len(self.runs) == config.max_nodes:
                    return
                run = self.child(run)
            if run and self.ended(run):
                values[run] = self.weight(run)
                if run not in self.leaves:
                    self.leaves.append(run)
            else:
                values[run] = 0.0
            rollouts.append(run)

    def chosen(self):
        """The leaf whose answer has most; each compared with all others."""
        most = []
        for leaf in self.leaves:
            same = [other for other in self.leaves if self.same(leaf, other)]
            weights = [self.weight(other) for other in same]
            won = {"best": max(weights), "weighted": sum(weights), "majority": len(same)}[self.config.vote]
            most.append((self.answer(leaf) is not None, won if self.answer(leaf) is not None else 0, leaf))
        if not most:
            return None
        top = next(leaf for has, won, leaf in most if (has, won) == max(m[:2] for m in most))
        rivals = [leaf for leaf in self.leaves if self.same(leaf, top)]
        return max(rivals, key=self.weight)

    def same(self, first, second):
        a, b = (self.answer(run) for run in (first, second))
        return a == b or (a is not None and b is not None and plain(a) == plain(b))

    def expected(self):
        """The fields of the record that a search decides."""
        chosen = self.chosen()
        thinking = [sum(self.world.step(run[: i + 1]).num_tokens for i in range(len(run))) for run in self.runs]
        for i, run in enumerate(self.runs):
            if self.ended(run):
                thinking[i] -= self.world.step(run).num_tokens - self.world.step(run).num_thinking_tokens
        return {
            "text": self.world.text(chosen) if chosen else "",
            "leaves": [[self.answer(leaf), self.weight(leaf)] for leaf in self.leaves],
            "steps": len(self.runs),
            "generated_tokens": sum(self.world.step(run).num_tokens for run in self.runs),
            "longest_path_tokens": max(thinking),
        }


def plain(answer):
    return answer.lstrip("0") if answer.isdigit() else answer.replace(" ", "")
