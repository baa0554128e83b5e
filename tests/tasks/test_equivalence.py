"""Numbers are compared as numbers, formulas by math-verify, and nothing that is written takes longer than it may."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from s1_jax.errors import RunError
from s1_jax.tasks import math_process
from s1_jax.tasks.equivalence import LONGEST, Verdict, grade_math, grade_plain, plain_number
from tests.runs import PATIENCE

SHORT = 0.5  # seconds of processor time that hostile answers get here: none needs more to show what it does
IN_PROCESS = 0.1  # seconds, of what nothing can end; it takes a hundredth of that
NUMBER, TEXT, MATH = (Verdict(True, by) for by in ("number", "text", "math"))
OTHER_NUMBER, OTHER_TEXT, OTHER_MATH = (verdict._replace(correct=False) for verdict in (NUMBER, TEXT, MATH))
UNDECIDED = Verdict(False, "undecided")
FACTORS_SWAPPED = (
    "F_n = \\sum_{k=0}^{n-1} F_k F_{n-k-1}",
    "F_n = \\sum_{k=0}^{n-1} F_{n-k-1} F_k",
)  # takes 0.5 s alone
ENDLESS = ("\\frac{x}{7}", "9^{99999999}")  # one power of whole numbers: C code that never looks up


@pytest.fixture
def helper(monkeypatch):
    """A worker of the test's own, and nothing remembered."""
    made = math_process.Helper()
    monkeypatch.setattr(math_process, "_helpers", made)
    math_process.forget()
    yield made
    made.close()


@pytest.fixture(scope="module")
def impatient_helper():
    """A worker whose forks have little time."""
    made = math_process.Helper()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(math_process, "SECONDS_OF_A_PAIR", SHORT)
        made.ask("2", "4/2")
    yield made
    made.close()


@pytest.fixture
def impatient(impatient_helper, monkeypatch):
    """`impatient_helper` grades, and nothing is remembered."""
    monkeypatch.setattr(math_process, "_helpers", impatient_helper)
    math_process.forget()
    return impatient_helper


@pytest.fixture
def no_worker(monkeypatch):
    """Starting the worker is an error."""
    monkeypatch.setattr(math_process.Helper, "_start", lambda _: pytest.fail("the worker was started"))
    math_process.forget()


@pytest.mark.usefixtures("no_worker")
@pytest.mark.parametrize(
    ("answer", "gold", "verdict"),
    [
        (None, "25", Verdict(False, "none")),
        ("25", "025", NUMBER),
        ("025", "25", NUMBER),
        ("0", "000", NUMBER),
        ("26", "025", OTHER_NUMBER),
        ("9" * 6000, "9" * 6000, NUMBER),
        ("25.", "25", NUMBER),
        ("$1,000.", "1000", NUMBER),
        ("\\$18.90", "18.9", NUMBER),
        ("10,080", "10,\\!080", NUMBER),
        ("11111111100", "11,\\! 111,\\! 111,\\! 100", NUMBER),
        ("1{,}000", "1000", NUMBER),
        ("10\\%", "10", NUMBER),
        ("10\\text{ units}", "10 ", NUMBER),
        ("15", "15\\mbox{ cm}^2", NUMBER),
        ("90", "90^\\circ", NUMBER),
        ("90^{\\circ}", "90°", NUMBER),
        ("18 dollars", "18", NUMBER),
        ("$18 per day", "\\$18", NUMBER),
        ("864 square inches a day", "864 \\mbox{ inches}^2", NUMBER),
        (".1", "0.1", NUMBER),
        ("-.50", "-0.5", NUMBER),
        ("−5", "-5", NUMBER),
        ("-0", "0", NUMBER),
        ("-5", "5", OTHER_NUMBER),
        ("0.1", "0.10000001", OTHER_NUMBER),
        ("x+1", " x+1", TEXT),
        ("5\\text{ million}", "5\\text{ million}", TEXT),
    ],
)
def test_what_needs_no_mathematics_starts_no_worker(answer, gold, verdict):
    assert grade_math(answer, gold) == grade_plain(answer, gold) == verdict


@pytest.mark.usefixtures("no_worker")
def test_plain_grading_knows_numbers_and_text_alone():
    assert grade_plain("\\frac12", "0.5") == grade_plain("²", "2") == grade_plain("5 million", "5") == OTHER_TEXT


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "1,00", "1,0000", "1e5", "x", "5 6", "½", "4, 10", "1/2"),
        *("5 halves", "2 pi", "5\\text{ dozen}", "5 million dollars"),
    ],
)
def test_what_is_no_plain_number(text):
    assert plain_number(text) is None


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("\\frac{1}{2}", "1/2", MATH),
        ("\\frac{1}{2}", "0.5", MATH),
        ("\\frac{3}{4}i", "\\frac34i", MATH),
        ("(x-2)(x+2)", "x^2 - 4", MATH),
        ("10\\sqrt3 + \\sqrt{4}", "2 + 10 \\cdot \\sqrt{3}", MATH),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)", MATH),
        ("x=5", "$x = 5$", MATH),
        ("5", "x = 5", MATH),
        ("\\text{Evelyn}", "Evelyn", MATH),
        ("x + y - z + 2 = 0", "5x - 7y + 11z + 4 = 0", OTHER_MATH),
        ("100 ", "10\\text{ units}", OTHER_MATH),
        ("5", "5\\text{ million}", UNDECIDED),
        ("(1,2)", "(2,1)", OTHER_MATH),
    ],
)
def test_formulas_are_compared_as_mathematics(gold, answer, verdict):
    assert grade_math(answer, gold) == verdict


HOSTILE = {
    "tower": "9^{9^{9^{9}}}",
    "power in C": "9^{99999999}",
    "factorial": "99999999!",
    "factorials": "9!!!!!!",
    "binomial": "\\binom{10^9}{5 \\cdot 10^8}",
    "braces": "{" * 900 + "1" + "}" * 900,
    "open braces": "\\frac{" * 300,
    "parentheses": "(" * 900 + "1" + ")" * 900,
    "sum": "\\sum_{k=1}^{10^{12}} \\sin(k)",
    "integral": "\\int_0^1 \\sin(x^{x^x}) e^{-x^3} \\, dx",
    "dollars": "$" * 1900,
    "and or": "$1$ and " * 200,
    "spaces": "1" + " " * 1800 + "x",
    "frozen polynomial": "+".join(f"x^{{{i}}}\\sqrt{{{i}+x}}" for i in range(90)),
    "product": "(x+y+z)^{5000}",
    "megabyte": "1+" * 2**19 + "1",
    "megabyte of digits": "7" * 2**20,
    "megabyte of spaces": "1" + " " * 2**20 + "x",
    "null": "\0\n\r\u2028",
    "half of a pair": "\ud800",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_are_wrong_and_the_next_is_graded_by_the_same_worker(name, impatient):
    worker = impatient._process
    assert not grade_math(HOSTILE[name], "\\frac{x}{7}").correct
    assert impatient.ask("\\frac{1}{4}", "0.25") == "equal"
    assert impatient._process is worker, "its forks were ended, not the worker"


@pytest.mark.parametrize(
    "filling", [" ", "\t", "7", ",7", "\\! ", "\\text{", "\\mbox{a}^2", "°", " per day", " square"]
)
def test_plain_numbers_take_no_time_in_this_process(filling):
    start = time.thread_time()  # a busy machine does not count
    for text in (f"1{filling * (LONGEST // len(filling) - 1)}", f"1{filling * (LONGEST // len(filling) - 1)}x"):
        plain_number(text)
    assert time.thread_time() - start < IN_PROCESS


def test_what_is_too_long_is_undecided_before_anyone_reads_it(no_worker):
    assert grade_math("x" * (LONGEST + 1), "x") == grade_math("x", "x" * (LONGEST + 1)) == UNDECIDED


def test_time_is_kept_even_inside_c_code_by_the_worker_itself(impatient):
    worker = impatient._process
    assert impatient.ask(*ENDLESS) == "too long"
    assert impatient._process is worker


def replies_of(tmp_path, compare, answers, seconds=5.0):
    """What a worker replies to answers with `compare`, Python's text of a function of gold and answer, in its place."""
    script = tmp_path / "stand_in.py"
    script.write_text(
        "import os, signal, sys, time\n"
        f"sys.path.insert(0, {str(math_process.WORKER.parent)!r})\n"
        "import math_worker\n"
        f"math_worker.compare = lambda gold, answer: gold or {compare}\n"
        f"math_worker.main({seconds})\n"
    )
    pairs = "\n".join(json.dumps(["", answer]) for answer in answers)
    done = subprocess.run([sys.executable, str(script)], input=pairs, capture_output=True, text=True)
    ready, *replies = done.stdout.splitlines()
    assert ready == "ready"
    return replies


def test_memory_is_bounded(tmp_path):
    sizes = [str(size) for size in (2**20, 2 * math_worker_memory(), 2**10)]
    assert replies_of(tmp_path, "str(len(bytearray(int(answer))))", sizes) == [sizes[0], "killed", sizes[2]]


def test_a_fork_that_waits_uses_up_nothing(tmp_path):
    """As one does beside others on a busy machine: the clock goes on, its processor time does not."""
    assert replies_of(tmp_path, "str(time.sleep(float(answer)))", ["0.3", "0"], seconds=0.1) == ["None", "None"]
    stopped = "str(os.system('(sleep 0.3; kill -CONT %d) & kill -STOP %d' % (os.getpid(), os.getpid())))"
    assert replies_of(tmp_path, stopped, [""], seconds=0.1) == ["0"], "stopped for three times its limit"


@pytest.mark.parametrize("ignored", ["SIGPROF", "SIGXCPU"])
def test_a_fork_that_works_too_long_is_ended_whatever_signal_it_ignores(tmp_path, ignored):
    endless = f"(signal.signal(signal.{ignored}, signal.SIG_IGN), sum(iter(int, 1)))"
    assert replies_of(tmp_path, f"{endless} if answer else 'next'", ["1", ""], seconds=0.2) == ["too long", "next"]


@pytest.mark.parametrize("reply", ["too long", "killed"])
def test_that_it_was_ended_is_not_remembered(monkeypatch, reply):
    said = iter([reply, reply, "equal", "different"])

    class Helper:
        def ask(self, gold, answer):
            return next(said)

    monkeypatch.setattr(math_process, "_helpers", Helper())
    math_process.forget()
    verdicts = [grade_math("\\frac{x}{9}", "\\frac{2x}{18}") for _ in range(4)]
    assert verdicts == [UNDECIDED, UNDECIDED, MATH, MATH]
    math_process.forget()


def test_a_formula_that_takes_long_has_the_time_it_needs_however_busy_the_machine_is(helper):
    """All busy loops and the worker share one processor; by the clock it then takes several times as long."""
    assert helper.ask("2", "4/2") == "equal"
    one = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(helper._process.pid, one)
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        for loop in loops:
            os.sched_setaffinity(loop.pid, one)
        assert helper.ask(*FACTORS_SWAPPED) == "equal"
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def math_worker_memory():
    namespace = {}
    (line,) = [line for line in math_process.WORKER.read_text().splitlines() if line.startswith("MEMORY = ")]
    exec(line, namespace)
    return namespace["MEMORY"]


def test_a_worker_that_dies_is_replaced(helper):
    assert helper.ask("2", "4/2") == "equal"
    first = helper._process.pid
    os.kill(first, signal.SIGKILL)
    assert helper.ask("2", "4/2") == "killed"
    assert helper.ask("2", "4/2") == "equal"
    assert helper._process.pid != first


def test_a_worker_that_does_not_answer_is_ended_and_replaced(helper, monkeypatch):
    assert helper.ask("2", "4/2") == "equal"
    first = helper._process.pid
    os.kill(first, signal.SIGSTOP)
    with monkeypatch.context() as patched:
        patched.setattr(math_process, "SECONDS_OF_AN_ANSWER", 0.2)
        assert helper.ask("2", "4/2") == "killed"
    assert helper.ask("2", "4/2") == "equal" and helper._process.pid != first


def test_ctrl_c_reaches_this_process_alone_and_the_next_reply_is_the_next_pairs(helper):
    assert helper.ask("2", "4/2") == "equal"
    first = helper._process
    assert os.getpgid(first.pid) != os.getpgid(0)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background is started without
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            helper.ask(*ENDLESS)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert helper.ask("2", "4/2") == "equal"


def test_the_worker_ends_with_the_process_that_asked(tmp_path):
    script = (
        "import os; from s1_jax.tasks import math_process as m; assert m.mathematically_equal('2', '4/2');"
        "print(m._helpers._idle[0]._process.pid, flush=True); os._exit(0)"  # no exit handler runs
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    worker = int(done.stdout)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and alive(worker):
        time.sleep(0.05)
    assert not alive(worker)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_worker_imports_nothing_of_ours(helper):
    assert helper.ask("2", "4/2") == "equal"
    maps = Path(f"/proc/{helper._process.pid}/maps").read_text()
    assert "jaxlib" not in maps and "tokenizers" not in maps and "numpy" not in maps


def test_without_math_verify_the_reason_is_one_line(helper, monkeypatch, tmp_path):
    broken = tmp_path / "math_worker.py"
    broken.write_text("import no_such_library\n")
    monkeypatch.setattr(math_process, "WORKER", broken)
    with pytest.raises(RunError, match=r"could not be started \(ModuleNotFoundError.*no_such_library") as error:
        helper.ask("2", "4/2")
    assert "\n" not in str(error.value)


def test_the_same_pair_is_asked_once(helper):
    assert grade_math("0.25", "\\frac{1}{4}") == MATH
    helper.ask = lambda *_: pytest.fail("asked again")
    assert grade_math("0.25", "\\frac{1}{4}") == MATH


def test_threads_have_a_worker_each_and_leave_it_to_the_next(monkeypatch):
    monkeypatch.setattr(math_process, "SECONDS_OF_A_PAIR", SHORT)
    helpers, together = math_process.Helpers(), threading.Barrier(2)

    def ask():
        together.wait()
        return helpers.ask("\\frac{x}{7}", "9^{99999999}")  # takes all the time it may

    try:
        with ThreadPoolExecutor(2) as threads:
            replies = [one.result() for one in [threads.submit(ask) for _ in range(2)]]
        assert replies == ["too long", "too long"]
        first = len(helpers._idle)
        assert helpers.ask("\\frac{x}{7}", "x/7") == "equal"
        assert first == len(helpers._idle) == 2
    finally:
        helpers.close()
