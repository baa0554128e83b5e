"""Select: s1K's way against a twin written from its description, the weights of its draws, and the ablations."""

import dataclasses
import json
import re
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from s1_jax.config.curate import SelectConfig, WriteConfig
from s1_jax.curation.select import METHODS, Pool, benchmark_weights, s1k, seed_rows, select
from s1_jax.curation.stages import counts_of
from s1_jax.curation.write import write
from s1_jax.errors import UserError
from tests.curation.pools import call, made_up, run

DRAWS = 4000
MOST_CHI_SQUARE = {9: 27.9, 11: 31.3}  # by degrees of freedom: one in a thousand is above


def pool_of(rows, seed):
    columns = made_up(rows, seed)
    return Pool(
        np.asarray(columns["source"]),
        np.asarray([domain or "unknown" for domain in columns["domain"]]),
        np.asarray(columns["thinking_tokens"]) // 2000 * 1000,  # with equal ones
        np.asarray([bool(correct) for correct in columns["correct"]]),
        np.asarray(columns["hard"]),
    )


def twin(pool, options):
    """Rows and what chose them: lists, fractions of one draw, nothing vectorised."""
    rng = np.random.default_rng(options.seed)

    def index(weights):
        left, total = rng.random() * sum(weights), 0.0
        for i, weight in enumerate(weights):
            total += weight
            if left < total:
                return i
        raise AssertionError("a draw beyond all weights")

    rows = [
        dict(zip(Pool._fields, values, strict=True)) | {"row": i} for i, values in enumerate(zip(*pool, strict=True))
    ]
    allowed = [row for row in rows if row["hard"]]
    chosen = []
    for row in rows if options.seed_from == "all" else allowed:
        long = row["sources"] == options.seed_long_source and row["tokens"] > options.seed_long_tokens
        if row["correct"] and (row["sources"] in options.seed_sources or long):
            chosen.append((row["row"], "seed"))
    totals = {name: sum(row["sources"] == name for row in allowed) for name, _ in options.benchmarks}
    weights = Counter()
    for row in allowed:
        for name, weight in options.benchmarks:
            if row["sources"] == name:
                weights[row["domains"]] += weight / totals[name]
    domains = {}
    for row in sorted(allowed, key=lambda row: (row["domains"], -row["tokens"], row["row"])):
        domains.setdefault(row["domains"], []).append(row["row"])
    while len(chosen) < options.size:
        by_weight = len(chosen) >= options.uniform_until and any(name in weights for name in domains)
        names = [name for name in domains if name in weights or not by_weight]
        name = names[index([weights[name] if by_weight else 1 for name in names])]
        row = domains[name].pop(index([2.0**-rank for rank in range(1, len(domains[name]) + 1)]))
        if not domains[name]:
            del domains[name]
        if row not in [old for old, _ in chosen]:
            chosen.append((row, "benchmark" if by_weight else "domain"))
    return chosen


@pytest.mark.parametrize("seed", range(12))
def test_s1k_is_its_twin(seed):
    rng = np.random.default_rng(seed)
    pool = pool_of(int(rng.integers(60, 400)), seed)
    seeds = ((), ("gpqa", "aime"), ("usaco", "nobody"))[seed % 3]
    options = SelectConfig(
        seed=seed,
        seed_sources=seeds,
        seed_long_source=("math", None)[seed % 2],
        seed_long_tokens=2000,
        seed_from=("hard", "all")[seed // 2 % 2],
        benchmarks=((("aime", 1.0), ("gpqa", 0.5)), (("nobody", 1.0),), (("usaco", 2.0),))[seed // 3 % 3],
    )
    there = int((pool.hard | np.isin(np.arange(len(pool.hard)), seed_rows(pool, options))).sum())
    least = max(len(seed_rows(pool, options)), 1)
    size = (there, there - 5, (least + there) // 2)[seed % 3]  # all of them too
    options = dataclasses.replace(options, size=size, uniform_until=(least + size) // 2)
    picks = list(s1k(pool, options))
    assert picks == twin(pool, options)
    assert len({pick.row for pick in picks}) == size
    assert picks == list(s1k(pool, options)), "the same seed, the same rows"
    if any(pick.by != "seed" for pick in picks[:-5]):
        assert picks != list(s1k(pool, dataclasses.replace(options, seed=seed + 1)))


def test_weights_of_ranks_and_domains():
    """Half the draws of a domain take the longest, a quarter the next; domains have equal shares, large or small."""
    sizes = {"a": 8, "b": 40, "c": 400}
    domains = np.repeat(list(sizes), list(sizes.values()))
    rows = len(domains)
    tokens = np.random.default_rng(0).permutation(rows)
    pool = Pool(np.full(rows, "numina"), domains, tokens, np.zeros(rows, bool), np.ones(rows, bool))
    rank = np.empty(rows, int)
    for name in sizes:
        inside = np.flatnonzero(domains == name)
        rank[inside[np.argsort(-tokens[inside])]] = np.arange(len(inside))
    first = [next(s1k(pool, SelectConfig(size=1, seed=seed))).row for seed in range(DRAWS)]
    seen = Counter((str(domains[row]), min(int(rank[row]), 3)) for row in first)
    expected = {}
    for name, size in sizes.items():
        weights = 0.5 ** np.arange(size) / (2 - 0.5 ** (size - 1))
        expected |= {(name, r): DRAWS / 3 * share for r, share in enumerate((*weights[:3], weights[3:].sum()))}
    chi_square = sum((seen[cell] - count) ** 2 / count for cell, count in expected.items())
    assert len(expected) == 12 and chi_square < MOST_CHI_SQUARE[11]


def test_benchmark_weights():
    sources = np.asarray(["aime"] * 4 + ["gpqa"] * 10 + ["math"] * 3)
    domains = np.asarray(["nt"] * 3 + ["geo"] + ["phys"] * 5 + ["bio"] * 4 + ["nt"] + ["sets"] * 3)
    hard = np.ones(len(sources), bool)
    pool = Pool(sources, domains, np.arange(len(sources)), ~hard, hard)
    weights = benchmark_weights(pool, SelectConfig())
    assert weights == pytest.approx({"nt": 3 / 4 + 0.5 / 10, "geo": 1 / 4, "phys": 0.25, "bio": 0.2})
    options = SelectConfig(size=1, uniform_until=0)
    drawn = Counter(str(domains[next(s1k(pool, dataclasses.replace(options, seed=i))).row]) for i in range(DRAWS))
    assert "sets" not in drawn
    for name, weight in weights.items():
        assert drawn[name] / DRAWS == pytest.approx(weight / 1.5, abs=0.03)  # four standard deviations
    pool.hard[0] = False  # easy rows do not count
    assert benchmark_weights(pool, SelectConfig())["nt"] == pytest.approx(2 / 3 + 0.5 / 10)


def test_a_seed_stays_in_its_domain_until_it_is_drawn():
    """So a domain that is full of seeds gets fewer others."""
    sources = np.asarray(["aime"] * 20 + ["math"] * 40)
    domains = np.asarray(["seeded"] * 40 + ["plain"] * 20)
    tokens = np.asarray([1000] * 20 + [10] * 40)
    pool = Pool(sources, domains, tokens, np.ones(60, bool), np.ones(60, bool))
    picks = [pick for pick in s1k(pool, SelectConfig(size=30, seed=3)) if pick.by != "seed"]
    assert len(picks) == 10 and all(domains[pick.row] == "plain" for pick in picks[:8])


def test_ablations():
    pool = pool_of(300, 1)
    options = SelectConfig(size=40, seed=5)
    rows = {name: [pick.row for pick in method(pool, options)] for name, method in METHODS.items() if name != "s1k"}
    assert rows["full"] == list(range(300))
    assert rows["longest"] == sorted(range(300), key=lambda row: (-pool.tokens[row], row))[:40]
    assert any(not pool.hard[row] for row in rows["random"]), "easy ones too"
    for name in ("random", "diverse"):
        assert len(set(rows[name])) == 40
        assert rows[name] == [pick.row for pick in METHODS[name](pool, options)]
        assert rows[name] != [pick.row for pick in METHODS[name](pool, dataclasses.replace(options, seed=6))]


def test_shares_of_random_and_diverse():
    domains = np.asarray(["large"] * 90 + ["small"] * 10)
    pool = Pool(np.full(100, "math"), domains, np.arange(100), np.zeros(100, bool), np.ones(100, bool))
    for name, share in (("random", 0.1), ("diverse", 0.5)):
        rows = [next(METHODS[name](pool, SelectConfig(size=1, seed=seed))).row for seed in range(DRAWS)]
        assert np.mean(domains[rows] == "small") == pytest.approx(share, abs=0.03)
        inside = np.bincount([row - 90 for row in rows if row >= 90], minlength=10)
        assert ((inside - inside.mean()) ** 2 / inside.mean()).sum() < MOST_CHI_SQUARE[9]


def test_the_table_and_the_counts(tmp_path):
    columns = made_up(400, 2)
    options = SelectConfig(size=150, uniform_until=130, seed=7)
    path = run([select], tmp_path, columns, select=options)
    rows = pq.read_table(path).to_pylist()
    by = Counter(row["chosen_by"] for row in rows)
    assert len(rows) == 150 and len({row["id"] for row in rows}) == 150
    assert by["benchmark"] == 20 and by["seed"] + by["domain"] == 130 and by["seed"] > 5 and by["domain"] > 5
    order = {row["id"]: i for i, row in enumerate(rows)}
    assert [row["chosen_by"] for row in rows] == sorted(by.elements(), key=("seed", "domain", "benchmark").index)
    assert all(
        columns["question"][i] == rows[order[id]]["question"] for i, id in enumerate(columns["id"]) if id in order
    )
    easy = columns["hard"].count(False)
    assert [(c.rule, c.dropped, c.left) for c in counts_of(path)[1:]] == [
        ("easy", easy, 400 - easy),
        ("not chosen", 250 - easy, 150),
    ]
    assert [
        (c.rule, c.left) for c in counts_of(run([select], tmp_path, columns, select=SelectConfig("longest", 9)))
    ] == [
        ("", 400),
        ("not chosen", 9),
    ]


def test_what_cannot_be_chosen_is_said(tmp_path):
    columns = made_up(100)
    hard = sum(columns["hard"])
    with pytest.raises(UserError, match=f"select.size 99 is more than the {hard} hard rows"):
        call(select, tmp_path, columns, select=SelectConfig(size=99))
    with pytest.raises(UserError, match="select.size 101 is more than the 100 rows"):
        call(select, tmp_path, columns, select=SelectConfig("random", 101))
    with pytest.raises(UserError, match="select.size 2 is below the [0-9]+ seed picks"):
        call(select, tmp_path, columns, select=SelectConfig(size=2))
    del columns["hard"]
    with pytest.raises(UserError, match="select needs column 'hard'"):
        call(select, tmp_path, columns)
    with pytest.raises(UserError, match="select.size is 0"):
        SelectConfig(size=0)


def real_pool(shared_data):
    """The released questions that have a text; source type stands for domain, the solution's length for the trace's."""
    lines = (shared_data / "s1k_released" / "s1k_released_questions_solutions.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["question"] is not None]
    kinds = [row["source_type"] or "not in the notebook" for row in rows]
    return {
        "id": [row["qhash"] for row in rows],
        "question": [row["question"] for row in rows],
        "solution": [row["solution"] for row in rows],
        "source": ["aime" if "AIME" in kind else kind for kind in kinds],
        "domain": kinds,
        "thinking": [row["solution"] for row in rows],
        "attempt": [row["solution"] for row in rows],
        "correct": [None] * len(rows),
        "thinking_tokens": [len(row["solution"]) for row in rows],
        "hard": [True] * len(rows),
    }


def test_200_of_the_real_questions(shared_data, tmp_path):
    columns = real_pool(shared_data)
    options = SelectConfig(size=200, uniform_until=140)
    compared = shared_data / "s1k_questions" / "s1k_notebook_questions.jsonl"
    written = WriteConfig(compare_with=str(compared))
    rows = pq.read_table(run([select, write], tmp_path, columns, select=options, write=written)).to_pylist()
    card = (tmp_path / "dataset" / "README.md").read_text()
    print(card)
    assert len({row["id"] for row in rows}) == 200
    assert Counter(row["chosen_by"] for row in rows) == {"domain": 140, "benchmark": 60}
    assert {row["domain"] for row in rows} == set(columns["domain"]), "every kind is there"
    assert all("AIME" in row["domain"] for row in rows if row["chosen_by"] == "benchmark"), "of two, GPQA has no text"
    tokens, domains = np.asarray(columns["thinking_tokens"]), np.asarray(columns["domain"])
    usual = np.mean([tokens[domains == row["domain"]].mean() for row in rows])
    assert np.mean([row["thinking_tokens"] for row in rows]) > 1.3 * usual, "longer than others of their kind"
    chosen = {re.sub(r"\s", "", row["question"].lower()) for row in rows}
    others = [json.loads(line)["question"] for line in compared.read_text().splitlines()]
    known = sum(re.sub(r"\s", "", text.lower()) in chosen for text in others if text is not None)
    assert known >= sum(row["domain"] != "not in the notebook" for row in rows)
    assert f"{known} of the 1,000 questions of {compared.name}" in card
    again = pq.read_table(run([select], tmp_path / "again", columns, select=options))
    assert again["id"].to_pylist() == [row["id"] for row in rows]
