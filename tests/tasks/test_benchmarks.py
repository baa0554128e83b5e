"""Every benchmark reads its own form, and its rules say what the head of its file says."""

import json
import random
from types import ModuleType

import pytest

from s1_jax.config import TaskConfig
from s1_jax.data import sources
from s1_jax.errors import UserError
from s1_jax.tasks import TASKS, Problem, Verdict, load_rules, load_task, registry
from s1_jax.tasks.gpqa_diamond import letter_in

THINK = "<|im_start|>think\nSo \\boxed{99}.\n<|im_start|>answer\n"
EXAMPLES = {  # of the files' heads: what is written, the right answer, what is extracted, the verdict
    "synthetic": ("Answer: 14<|im_end|>", "14", "14", Verdict(True, "number")),
    "aime24": ("There are $\\boxed{10}$ of them.<|im_end|>", "010", "10", Verdict(True, "number")),
    "aime24_figures": ("There are $\\boxed{10}$ of them.<|im_end|>", "010", "10", Verdict(True, "number")),
    "aime25": ("Final Answer: $90^\\circ$<|im_end|>", "90", "$90^\\circ$", Verdict(True, "number")),
    "aime26": ("The remainder is $\\boxed{024}$.<|im_end|>", "24", "024", Verdict(True, "number")),
    "hmmt_feb25": (
        "The distance is $\\boxed{\\frac{6}{\\sqrt{10}}}$.<|im_end|>",
        *("\\frac{3\\sqrt{10}}{5}", "\\frac{6}{\\sqrt{10}}", Verdict(True, "math")),
    ),
    "hmmt_nov25": (
        "Answer: $\\binom{4}{2} / 2^4$<|im_end|>",
        *("\\frac{3}{8}", "$\\binom{4}{2} / 2^4$", Verdict(True, "math")),
    ),
    "hmmt_feb26": (
        "So $x$ is $\\boxed{(3+\\sqrt{2})^{1/2}}$.<|im_end|>",
        *("\\sqrt{3+\\sqrt{2}}", "(3+\\sqrt{2})^{1/2}", Verdict(True, "math")),
    ),
    "brumo25": ("The area is $\\boxed{2.25\\pi}$.<|im_end|>", "\\frac{9\\pi}{4}", "2.25\\pi", Verdict(True, "math")),
    "amc23": ("It goes $\\boxed{54 \\text{ miles}}$.<|im_end|>", "54.0", "54 \\text{ miles}", Verdict(True, "number")),
    "olympiadbench": (
        "The roots are $\\boxed{x = 3 \\text{ or } x = 2}$.<|im_end|>",
        *("2, 3", "x = 3 \\text{ or } x = 2", Verdict(True, "math")),
    ),
    "minerva_math": (
        "The distance is $\\boxed{1.5 \\times 10^{8} \\text{ km}}$.<|im_end|>",
        *("1.5e11 \\text{ m}", "1.5 \\times 10^{8} \\text{ km}", Verdict(True, "math")),
    ),
    "math500": ("Half of it is $\\boxed{\\dfrac13}$.<|im_end|>", "\\frac{1}{3}", "\\dfrac13", Verdict(True, "math")),
    "gpqa_diamond": ("Answer: b<|im_end|>", "B", "B", Verdict(True, "letter")),
    "gpqa_main": ("**Answer:** C) Helium<|im_end|>", "C", "C", Verdict(True, "letter")),
    "gsm8k": ("Answer: \\$10.00<|im_end|>", "10", "\\$10.00", Verdict(True, "number")),
    "jsonl": ("Answer: Sao Paulo<|im_end|>", "Sao Paulo", "Sao Paulo", Verdict(True, "text")),
}
WRONG = {  # of the files' heads: answers that the rules reject
    "aime26": ("1024",),
    "hmmt_feb25": ("\\frac{3\\sqrt{10}}{10}",),
    "hmmt_nov25": ("\\frac{1}{4}",),
    "hmmt_feb26": ("\\sqrt{3-\\sqrt{2}}",),
    "brumo25": ("9\\pi",),
    "amc23": ("37.5",),
    "olympiadbench": ("2", "2, 3, 5"),
    "minerva_math": ("1.5 \\times 10^{8} \\text{ m}", "1.49e11"),
    "gpqa_main": ("Answer: B",),
}
HUB = {  # data set, configuration, split
    "aime24": ("simplescaling/aime24_nofigures", None, "train"),
    "aime24_figures": ("simplescaling/aime24_figures", None, "train"),
    "aime25": ("TIGER-Lab/AIME25", None, "train"),
    "aime26": ("MathArena/aime_2026", None, "train"),
    "hmmt_feb25": ("MathArena/hmmt_feb_2025", None, "train"),
    "hmmt_nov25": ("MathArena/hmmt_nov_2025", None, "train"),
    "hmmt_feb26": ("MathArena/hmmt_feb_2026", None, "train"),
    "brumo25": ("MathArena/brumo_2025", None, "train"),
    "amc23": ("math-ai/amc23", None, "test"),
    "olympiadbench": ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train"),
    "minerva_math": ("math-ai/minervamath", None, "test"),
    "math500": ("simplescaling/openaimath", None, "test"),
    "gpqa_diamond": ("Idavidrein/gpqa", "gpqa_diamond", "train"),
    "gpqa_main": ("Idavidrein/gpqa", "gpqa_main", "train"),
    "gsm8k": ("openai/gsm8k", "main", "test"),
}
PLANETS = {
    "Question": "Which planet is closest to the Sun?\n",
    "Correct Answer": "Mercury\n",
    "Incorrect Answer 1": "Venus",
    "Incorrect Answer 2": "Earth",
    "Incorrect Answer 3": " Mars",
    "Record ID": "rec1",
}


def module_of(task):
    modules = [module for module in vars(registry).values() if isinstance(module, ModuleType)]
    return next(module for module in modules if any(task is value for value in vars(module).values()))


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="rows.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    return write


def gpqa_rows(count):
    return [PLANETS | {"Question": f"{i}?", "Record ID": f"rec{i}"} for i in range(count)]


@pytest.mark.parametrize("name", TASKS)
def test_worked_examples(name):
    rules = load_rules(TaskConfig(name))
    written, gold, extracted, verdict = EXAMPLES[name]
    assert rules.extract(THINK + written) == extracted
    assert rules.grade(extracted, gold) == verdict
    assert rules.grade(rules.extract(THINK), gold) == Verdict(False, "none")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_worked_example_is_the_one_of_the_files_head(name):
    head = module_of(TASKS[name]).__doc__
    written, _, extracted, _ = EXAMPLES[name]
    assert written in head and extracted in head
    assert all(answer in head for answer in WRONG.get(name, ()))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_wrong_and_decided(name):
    rules, gold = load_rules(TaskConfig(name)), EXAMPLES[name][1]
    for answer in WRONG[name]:
        verdict = rules.grade(rules.extract(THINK + answer), gold)
        assert not verdict.correct and verdict.by in ("number", "math", "letter"), answer


@pytest.mark.parametrize("name", HUB)
def test_by_default_problems_come_from_the_hub(name, monkeypatch):
    import datasets

    asked = []
    row = PLANETS | {"id": 1, "question": "2+2?", "answer": "So. #### 4" if name == "gsm8k" else "4"}
    row |= {"final_answer": ["$4$"], "is_multiple_answer": False}
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, split: asked.append((*names, split)) or [row])
    (problem,) = load_task(TaskConfig(name)).problems
    assert asked == [HUB[name]]
    assert problem.gold in ("4", *"ABCD")


def test_gsm8ks_gold_stands_after_the_mark(write):
    path = write({"question": "How many?", "answer": "He has <<2*600=1200>>1200.\n#### 1,200"})
    assert load_task(TaskConfig("gsm8k", path)).problems == (Problem("rows.jsonl:1", "How many?", "1,200"),)
    for answer in ("1200", "so\n#### "):
        with pytest.raises(UserError, match="rows.jsonl, line 1: field answer has no result after ####"):
            load_task(TaskConfig("gsm8k", write({"question": "How many?", "answer": answer})))


def test_gpqa_shows_four_choices_and_knows_the_right_letter(write):
    (problem,) = load_task(TaskConfig("gpqa_diamond", write(PLANETS))).problems
    question, _, choices = problem.question.partition("\n\n")
    assert question == "Which planet is closest to the Sun?" and problem.id == "rec1"
    letters, texts = zip(*(line.split(") ") for line in choices.split("\n")), strict=True)
    assert letters == tuple("ABCD") and set(texts) == {"Mercury", "Venus", "Earth", "Mars"}
    assert texts[letters.index(problem.gold)] == "Mercury"


def test_gpqas_order_is_the_seeds_and_each_problems_own(write):
    rows = gpqa_rows(200)
    config = TaskConfig("gpqa_diamond", write(*rows))
    random.seed(1)
    problems = load_task(config).problems
    random.seed(2)
    backwards = load_task(TaskConfig("gpqa_diamond", write(*reversed(rows), name="backwards.jsonl"))).problems
    assert sorted(problems, key=str) == sorted(backwards, key=str)
    others = load_task(TaskConfig("gpqa_diamond", config.path, seed=1)).problems
    moved = sum(one.question != other.question for one, other in zip(problems, others, strict=True))
    assert moved > 150, "of 24 orders, another seed gives the same one now and then"
    counts = [sum(problem.gold == letter for problem in problems) for letter in "ABCD"]
    assert min(counts) > 30, "every letter is right about 50 times"
    assert problems[0].question == "0?\n\nA) Mercury\nB) Mars\nC) Earth\nD) Venus", "on every machine, for ever"


def test_a_question_of_both_gpqa_tasks_is_the_same_in_both(write):
    path = write(*gpqa_rows(20))
    for seed in (0, 1):
        diamond, main = (
            load_task(TaskConfig(name, path, seed=seed)).problems for name in ("gpqa_diamond", "gpqa_main")
        )
        assert diamond == main and len(main) == 20


def test_gpqa_from_the_authors_csv(tmp_path):
    path = tmp_path / "gpqa_diamond.csv"
    path.write_text(",".join(PLANETS) + "\n" + ",".join(f'"{value}"' for value in PLANETS.values()) + "\n")
    (problem,) = load_task(TaskConfig("gpqa_diamond", str(path))).problems
    assert problem.id == "rec1" and "Mercury" in problem.question


def test_gpqa_says_what_is_missing(write, monkeypatch):
    row = {name: value for name, value in PLANETS.items() if name != "Incorrect Answer 3"}
    for name in ("gpqa_diamond", "gpqa_main"):
        with pytest.raises(UserError, match="line 1: no field Incorrect Answer 3"):
            load_task(TaskConfig(name, write(row)))
        with pytest.raises(UserError, match=r"gated: accept its terms.*--task.path") as error:
            load_task(TaskConfig(name))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *(("B", "B"), ("b", "B"), (" (b). ", "B"), ("\\text{B}", "B"), ("\\textbf{(B)}", "B"), ("**B**", "B")),
        *(("B) Mercury", "B"), ("(B) a planet", "B"), ("B. It is", "B"), ("B: it", "B")),
        *(("E", None), ("Mercury", None), ("A or B", None), ("AB", None), ("", None), ("Because B", None)),
    ],
)
def test_letters(answer, letter):
    assert letter_in(answer) == letter


@pytest.mark.parametrize("name", ["gpqa_diamond", "gpqa_main"])
def test_what_names_no_letter_is_unparsed_or_an_a(name):
    rules, as_reference = (load_rules(TaskConfig(name, no_letter_is_a=on)) for on in (False, True))
    for written, extracted in (("It is Mercury.", "It is Mercury."), ("", None)):
        assert rules.extract(THINK + written) == extracted
        assert as_reference.extract(THINK + written) == "A"
    assert rules.grade("It is Mercury.", "A") == Verdict(False, "unparsed")
    assert as_reference.grade("A", "A") == Verdict(True, "letter")
    assert as_reference.extract(THINK + "Answer: c") == "C"


def test_math500_in_s1s_own_form(shared_data):
    math = load_task(TaskConfig("math500", path=str(shared_data / "math500" / "math500.jsonl")))
    assert len(math.problems) == 500 and math.problems[0].id == "test/precalculus/807.json"


def test_a_configs_own_hub_data_set_is_asked_without_the_benchmarks_configuration(monkeypatch):
    asked = []
    monkeypatch.setattr(sources, "_hub_rows", lambda *names: asked.append(names) or iter(()))
    with pytest.raises(UserError, match="contains no problems"):
        load_task(TaskConfig("gsm8k", "me/my-gsm8k"))
    assert asked == [("me/my-gsm8k", "test", None)]
