r"""The same answer in many forms is right, another one never is, and what no rule can tell is undecided.

The forms are those of public bug reports on graders, and of models' real answers; the values are a mathematician's.
"""

import json
import random
from fractions import Fraction

import pytest

from s1_jax.config import TaskConfig
from s1_jax.tasks import load_rules
from s1_jax.tasks.equivalence import Verdict, grade_math, grade_plain

TASKS = {"math": "math500", "aime": "aime24", "gpqa": "gpqa_diamond"}
THINK = "<|im_start|>think\nSo.\n<|im_start|>answer\n"
OPEN = ("undecided", "unparsed")
SAME = [  # the right answer, and others that mean the same
    (
        "5",
        "5.",
        "**5**",
        "*5*",
        "__5__",
        "`5`",
        "$5$.",
        "$$5$$",
        "\\(5\\).",
        "\\[5\\]",
        "# 5",
        '"5"',
        "“5”",
        "(5)",
        "= 5",
    ),
    ("5", "5;", ": 5", "\\mathbf{5}", "\\text{5}", "\\bm{5}", "5\\;", "5~", "x = 5.", "m+n=5", "N = 2+3 = 5", "2+3=5"),
    ("5", "\\text{Answer: } 5", "\\text{The answer is } 5", "5 ways", "5 units", "\\$5", "$5", "5 cm", "5 USD", "5.0"),
    (
        "1000",
        "1,000",
        "1 000",
        "1{,}000",
        "1\\,000",
        "1\\ 000",
        "1\u202f000",
        "1\u2009000",
        "1'000",
        "1_000",
        "10^3",
        "1e3",
    ),
    (
        "\\frac{1}{2}",
        "1/2.",
        "0.5",
        ".5",
        "\\dfrac12",
        "2/4",
        "½",
        "5 \\times 10^{-1}",
        "50\\%",
        "50%",
        "\\frac{1}{2}.",
    ),
    ("1\\frac{1}{2}", "1½", "1 1/2", "3/2", "1.5", "\\frac32", "\\dfrac{3}{2}"),
    ("\\frac{1}{3}", "0.\\overline{3}", "\\frac{2}{6}"),
    ("\\sqrt{3}", "√3", "sqrt(3)", "sqrt3", "3^(1/2)", "\\sqrt 3.", "\\sqrt{3}."),
    ("\\frac{\\sqrt{3}}{2}", "√3/2", "sqrt(3)/2", "\\frac{3}{2\\sqrt3}", "\\sin 60^\\circ", "(√3)/2"),
    ("-2\\pi", "-2*pi", "-2pi", "−2π", "-π·2"),
    ("e^{16}-1", "exp(16)-1", "e^16 - 1"),
    ("300000000", "3e8", "3E8", "3.0e+8", "3×10^8", "3 \\times 10^{8}", "300 000 000"),
    ("14-i", "14-1.0i", "-i+14", "14 - i."),
    ("\\emptyset", "\\varnothing", "∅", "\\{\\}"),
    ("x^2", "x**2", "x²", "x*x", "f(x) = x^2", "$x^2$."),
    ("x_1+x_2", "x₁+x₂", "x_2 + x_1"),
    (
        "(-\\infty,2)\\cup(3,\\infty)",
        "(−∞,2)∪(3,∞)",
        "(-∞, 2) U (3, ∞)",
        "(-inf,2) \\cup (3,inf)",
        "x<2 \\text{ or } x>3",
    ),
    ("[2,5)", "2 \\le x < 5", "2 <= x < 5", "5 > x \\ge 2", "x \\ge 2 \\text{ and } x < 5", "x \\in [2, 5)."),
    ("x \\ge -2", "[-2,\\infty)", "x >= -2", "x≥−2", "-2 \\le x"),
    (
        "\\begin{pmatrix} -1 \\\\ 4 \\end{pmatrix}",
        "(-1,4)",
        "\\langle -1, 4 \\rangle",
        "\\begin{bmatrix}-1\\\\4\\end{bmatrix}.",
    ),
    ("(3,4)", "( 3 , 4 ).", "\\left(3,4\\right)", "(x,y)=(3,4)", "\\begin{pmatrix} 3 \\\\ 4 \\end{pmatrix}"),
    ("1,-2", "-2,1", "-2 and 1", "\\{1,-2\\}", "x=1, x=-2", "x=1 \\text{ or } x=-2"),
    ("1\\pm\\sqrt{2}", "1±√2", "1-\\sqrt2, 1+\\sqrt2"),
    ("110_2", "110_{2}", "(110)_2", "110_{\\text{two}}", "110₂", "110"),
    ("30^\\circ", "30°", "30 degrees", "30", "30\\degree", "\\frac{\\pi}{6}"),
    ("25\\%", "25%", "25 percent", "25", "0.25", "\\frac14"),
    ("2 hours", "120 minutes", "2 hrs", "2\\text{ h}", "2"),
    ("\\$5", "5 dollars", "500 cents", "US$5", "5.00", "$5.00$"),
    ("5\\text{ cm}^2", "5 square centimeters", "5 cm²", "5 cm^2", "5"),
    ("\\frac{270}7\\text{ degrees}", "270/7", "\\frac{270}{7}^\\circ"),
    ("12", "12th", "12^{\\text{th}}", "12^{\\mathrm{th}}"),
    ("3:30", "3:30.", "03:30"),
    ("\\text{even}", "even.", "Even", "\\textbf{even}", "**even**", "The answer is even."),
    ("\\text{ellipse}", "an ellipse", "Ellipse."),
    ("\\text{(C)}", "C", "(C)", "C)", "\\textbf{(C)}", "C: because it is", "\\text{\\left(C\\right)}"),
    ("\\frac{1}{2^{60}}", "2^{-60}", "1/2^{60}"),
    ("2^{100}", "1267650600228229401496703205376"),
    ("\\cot x", "cot(x)", "cot x", "\\frac{\\cos x}{\\sin x}"),
    ("y=2x+3", "y=2x+3.", "2x+3", "y = 2*x + 3"),
]
OTHER = [  # the right answer, and others that are wrong, or of which no rule may say that they are right
    ("\\frac{1}{2^{60}}", "\\frac{3}{2^{60}}", "0", "2^{-61}"),
    ("10^{-20}", "2 \\cdot 10^{-20}", "10^{-21}"),
    ("e^{-50}", "2e^{-50}", "0"),
    ("100!", "100!+1", "100!-1"),
    ("\\sqrt{10^{40}+1}", "10^{20}"),
    ("1", "1+10^{-30}", "1+e^{-1000}"),
    ("6.72 \\times 10^{-5}", ".0000674"),
    ("\\frac{1}{3}", "0.33", "0.333333", "0.3333333333", "0.3", "0.\\overline{34}"),
    ("\\pi", "3.14159265", "\\frac{22}{7}", "3.14"),
    ("0.\\overline{12}", "0.12", "0.1\\overline{2}"),
    ("110_2", "110_3", "111_2", "6"),
    ("52_8", "52_9", "42"),
    ("6", "110_2"),
    ("52", "52_8"),
    ("\\$5", "5 cents", "5 euros", "\\$500"),
    ("5\\text{ dollars}", "5\\text{ cents}", "5 dollars and 2 cents"),
    ("2 hours", "2 minutes", "2\\text{ min}", "2 days"),
    ("3 cm", "3 m", "3\\text{ mm}", "3 cm^2"),
    ("3m", "3t", "3s"),
    ("2s", "2t", "2m"),
    ("5\\text{ cm}^2", "5\\text{ cm}^3", "5\\text{ cm}"),
    ("30^\\circ", "30 \\text{ radians}", "30'", "30\\%"),
    ("\\frac{\\pi}{6}", "\\frac{\\pi}{6}^\\circ", "\\frac{\\pi}{6} degrees"),
    ("5 apples", "5 oranges"),
    ("5 dollars per hour", "5 dollars per day"),
    ("0.5", "0.5\\%", "5\\%"),
    ("111", "0,111", "0,111.0"),
    ("1000", "1,00,0", "1.000,00", "10,00"),
    ("1.5", "1,5", "15"),
    ("1234567", "1 234 568", "12 34567"),
    (
        "3",
        "3 or 5",
        "5 or 3",
        "3, 5",
        "\\{3,5\\}",
        "x=3 \\text{ or } x=5",
        "$7$? $3$?",
        "3\n5",
        "3 \\pm 1",
        "3 to 5",
        "3-5",
    ),
    (
        "7",
        "no integer $x=7$",
        "It is not $7$.",
        "$7$ is not the answer",
        "7, no, wait: 8",
        "7 is wrong",
        "Step 7: it is 8",
    ),
    (
        "5",
        "x+2=5",
        "x^2=5",
        "2x=5",
        "2+2=5",
        "x=4=5",
        "x \\ne 5",
        "x<5",
        "\\ge 5",
        "at least 5",
        "about 5",
        "5 million",
    ),
    (
        "5",
        "5 \\text{ is wrong}",
        "5\\text{ squared}",
        "5th root",
        "5 halves",
        "5!",
        "5'",
        "5 factorial",
        "5 \\text{ or } 6",
    ),
    ("x=3", "y=3", "x=-3"),
    ("x=1,y=2", "x=2,y=1"),
    ("x", "X", "y"),
    ("3R^2", "3r^2"),
    ("2ab", "2c", "2a"),
    ("(1,2)", "(2,1)", "\\{2,1\\}", "2,1", "[1,2]"),
    ("\\{1,2\\}", "(1,2)", "\\{1,3\\}"),
    ("(0,1]", "(0,1)", "[0,1)", "[0,1]"),
    ("[2,5)", "2 < x < 5", "2 \\le x \\le 5", "x \\ge 2"),
    ("3,3,5", "3,5,5", "3,5"),
    ("1,-2", "1,2", "1", "1,-2,3"),
    ("\\pm 3", "3", "-3"),
    ("\\begin{pmatrix} 1/3 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} 0.333333 \\\\ 2 \\end{pmatrix}", "(2,1/3)"),
    ("3+4i", "3-4i", "4+3i"),
    ("\\log_2 3", "\\log_3 2", "\\log_4 3"),
    ("\\sqrt{3}", "\\sqrt[3]{3}", "-\\sqrt3"),
    ("3:30", "4:30", "3:03"),
    ("3:30\\text{ AM}", "3:30\\text{ PM}"),
    ("1:2:3", "1:3:2"),
    ("\\text{even}", "odd", "not even", "neve", "neither even nor odd"),
    ("\\text{listen}", "silent"),
    ("\\text{(C)}", "D", "\\text{(A) or (C)}"),
    ("\\text{Yes}", "No"),
]
SAID = [  # in a sentence: right or undecided, never wrong
    (
        "70",
        "The final answer is 70",
        "There are 70 ways.",
        "70 (as computed above)",
        "70\n\nThis follows from the table.",
    ),
    (
        "35",
        "35\n\nStep 1: I'll add 3 and 32.",
        "The answer is 35.",
        "7 * 5 = 35\n\nStep 2: so it is",
        "Total = 7*5 = 35 apples",
    ),
    (
        "73",
        "The answer is: **73**.",
        "So the answer is \\(73\\).",
        "73, since 70 + 3 is 73.",
        "73 because 70+3=73",
        "73 – the sum",
    ),
    ("73", "The answer is\n\\[\n73\n\\]", "```\n73\n```", "<answer>73</answer>", "73\n\nAnswer: 73", "It costs $73."),
    (
        "\\frac34",
        "The final answer is 3/4.",
        "The answer is $\\frac{3}{4}$, as above.",
        "\\frac{3}{4} (in lowest terms)",
    ),
    ("3", "The answer is three.", "III", "approximately 3", "- 3", "1. 3"),
    ("\\text{two}", "2"),
    ("42", "\\text{forty-two}", "forty-two"),
    ("\\text{ellipse}", "The graph is an ellipse.", "It is an oval curve"),
    ("\\emptyset", "no solution", "none"),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "[1,2]", "\\begin{pmatrix} 1 & 2 \\end{pmatrix}", "1, 2 as a column"),
    ("1.5", "1,5"),
    ("2 minutes", "It takes 2 minutes to fill."),
]
SAID_OTHERWISE = [  # in a sentence, another answer, or none that is sure
    ("70", "The final answer is 71", "There are 71 ways.", "71 (as computed above)", "The answer is 70 or 71."),
    (
        "70",
        "70\n\nWait, that is wrong. It is 71.",
        "70, but 71 is possible",
        "70\n\nFinal answer: 71",
        "The answer is not 70.",
    ),
    (
        "70",
        "The answer is 70. No, the answer is 71.",
        "There are at least 70 ways.",
        "There are more than 70.",
        "70\n71",
    ),
    ("70", "70 percent of 200 is 140", "About 70 people came.", "Between 60 and 70.", "The answer is 70 million."),
    ("2 hours", "It takes 2 minutes to fill."),
    ("\\$73", "It costs 73 cents."),
]


def pairs(table):
    return [(gold, answer) for gold, *answers in table for answer in answers]


@pytest.mark.parametrize(("gold", "answer"), pairs(SAME))
def test_the_same_in_another_form_is_right(gold, answer):
    assert grade_math(answer, gold).correct


@pytest.mark.parametrize(("gold", "answer"), pairs(OTHER) + pairs(SAID_OTHERWISE))
def test_another_value_is_never_right(gold, answer):
    assert not grade_math(answer, gold).correct


@pytest.mark.parametrize(("gold", "answer"), pairs(SAID))
def test_what_is_said_in_words_is_never_wrong_for_sure(gold, answer):
    verdict = grade_math(answer, gold)
    assert verdict.correct or verdict.by == "undecided" or answer in ("- 3", "III")  # a minus; three letters
    if gold in ("70", "35", "73"):
        assert verdict.correct, "the number can be read"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        *(("111", "0,111"), ("110_2", "110_3"), ("5\\text{ dollars}", "5\\text{ cents}"), ("2 hours", "2 minutes")),
        *(("\\frac{1}{2^{60}}", "\\frac{3}{2^{60}}"), ("70", "The final answer is 71."), ("35", "36\n\nStep 1: add")),
        *(("\\frac12", "\\frac13"), ("3:30", "4:30"), ("(1,2)", "(2,1)"), ("\\text{even}", "odd")),
    ],
)
def test_what_surely_differs_is_wrong_not_undecided(gold, answer):
    verdict = grade_math(answer, gold)
    assert not verdict.correct and verdict.by not in OPEN


def test_the_tiny_tasks_rule_reads_a_sentence_and_calls_nonsense_wrong():
    assert grade_plain("The answer is 35.", "35") == grade_plain("**35**", "35") == Verdict(True, "number")
    assert grade_plain("The answer is 36.", "35") == grade_plain("+ + 3", "35") == Verdict(False, "text")
    assert grade_plain("5 cents", "\\$5") == Verdict(False, "number")


def test_outside_cases(shared_data):
    missed = []
    for line in (shared_data / "grader_cases" / "outside_cases.jsonl").read_text().splitlines():
        row = json.loads(line)
        rules = load_rules(TaskConfig(TASKS[row["task"]]))
        verdict = rules.grade(
            rules.extract(f"{THINK}{row['answer_text']}<|im_end|>", "<|im_start|>answer"), row["gold"]
        )
        passes = {verdict.correct if verdict.by not in OPEN or not verdict.correct else None}
        if verdict.by in OPEN:
            passes = {None} if row["want"] is not False else {False}
        if not (row["want"] in passes or ("undecided passes" in row["note"] and verdict.by in OPEN)):
            missed.append((row, verdict))
    assert missed == []


def test_no_labelled_real_answer_loses_its_label(shared_data):
    """Real answers of reasoning models with "**Answer:** ..." and no box."""
    found = 0
    rules = load_rules(TaskConfig("aime24"))
    for line in (shared_data / "long_cot_traces" / "steering_r1distill.jsonl").read_text().splitlines():
        attempt = json.loads(line)["attempt"] or ""
        label = attempt.rfind("**Answer:**")
        if label >= 0 and "boxed" not in attempt and attempt.lower().count("answer:") == 1:
            extracted = rules.extract(f"{THINK}{attempt}<|im_end|>", "<|im_start|>answer")
            assert (
                extracted and not extracted.startswith("*") and attempt[label + 11 :].strip().startswith(extracted[:20])
            )
            found += 1
    assert found > 40


def test_random_rewritings_are_never_wrong_and_random_other_values_never_right():
    rng = random.Random(0)
    for _ in range(150):
        value = Fraction(rng.randint(-2000, 2000), rng.choice((1, 1, 2, 3, 4, 5, 7, 8, 12)))
        other = value + Fraction(rng.choice((-1, 1)), rng.choice((1, 2, 10, 10**3, 10**9, 2**60)))
        gold = rng.choice(forms(value))
        same = rng.choice(marks(rng.choice(forms(value))))
        wrong = rng.choice(marks(rng.choice(forms(other))))
        verdict = grade_math(same, gold)
        assert verdict.correct or verdict.by == "undecided", (gold, same)
        assert not grade_math(wrong, gold).correct, (gold, wrong)


def forms(value):
    """Ways to write a number."""
    top, bottom, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    written = [
        f"{value.numerator}/{bottom}",
        f"{sign}\\frac{{{top}}}{{{bottom}}}",
        f"\\dfrac{{{2 * value.numerator}}}{{{2 * bottom}}}",
    ]
    if bottom == 1:
        written += [
            f"{sign}{top}",
            f"{sign}{top:,}",
            f"{sign}{top}.0",
            f"{sign}{top:,}".replace(",", " "),
            f"{sign}{top}e0",
        ]
    elif top > bottom:
        written += [f"{sign}{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}"]
    if 1000 % bottom == 0:
        written += [f"{sign}{top // bottom}.{1000 * (top % bottom) // bottom:03d}"]
    return written


def marks(text):
    """The text in marks of a sentence, of markdown, of LaTeX."""
    around = (
        "{}",
        "${}$",
        "**{}**",
        "{}.",
        "\\({}\\)",
        "= {}",
        "`{}`",
        "The answer is {}.",
        "The final answer is ${}$.",
    )
    return [one.format(text) for one in (*around, "\\boxed{{{}}}", "{} (as above)", "{}\n\nStep 1: add them.")]
