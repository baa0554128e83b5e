"""Formulas in the report: where they are, what is drawn of them, and that the rest is text as it was written."""

import json

import pytest

from tests.reporting.browser import run_in_page
from tests.reporting.made_up import spoken
from tests.reporting.test_html import HOSTILE_FORMULAS, made_page

# What a formula says in words, as MathML in a short notation: name(children), text as it is.
TOLD = """
    const told = (node) => {
        if (typeof node === "string" || node.nodeType === 3) return node.textContent ?? node;
        const inside = [...node.childNodes].map(told).join(" ").trim();
        return ["mi", "mn", "mo", "mtext", "math"].includes(node.localName) ? inside : `${node.localName}(${inside})`;
    };
    const draw = (source) => {
        const math = drawn(source, false);
        return math && told(math).replace(/mrow\\(([^() ]+)\\)/g, "$1"); // a group of one
    };
"""
DRAWN = {
    r"x^2+1": "msup(x 2) + 1",
    r"\frac12": "mfrac(1 2)",
    r"\frac{a}{b+1}": "mfrac(a mrow(b + 1))",
    r"\dfrac 3 {10}": "mstyle(mfrac(3 10))",
    r"x_{12}^3": "msubsup(x 12 3)",
    r"x^10": "msup(x 1) 0",
    r"a'": "msup(a ′)",
    r"\sqrt 2 + \sqrt[3]{x}": "msqrt(2) + mroot(x 3)",
    r"\left( 3, \frac{\pi}{2} \right)": "mrow(( 3 , mfrac(π 2) ))",
    r"\left\{1\right.": "mrow({ 1)",
    r"3\cdot 10^{-2}": "3 ⋅ msup(10 mrow(− 2))",
    r"90^\circ": "msup(90 ∘)",
    r"50\%": "50 %",
    r"\$5": "$ 5",
    r"\alpha\le\Gamma": "α ≤ Γ",
    r"\mathbb{R}, \mathcal L": "ℝ , ℒ",
    r"\text{if } x>0": "if x > 0",
    r"\text{for $n$ odd}": "mrow(for n odd)",
    r"\sum_{i=1}^n i": "munderover(∑ mrow(i = 1) n) i",
    r"\int_0^1 f": "msubsup(∫ 0 1) f",
    r"\lim_{x \to 0} x": "munder(lim mrow(x → 0)) mspace() x",
    r"\sin^2 x": "msup(sin 2) mspace() x",
    r"\binom{n}{k}": "mrow(( mfrac(n k) ))",
    r"{n \choose k}": "mrow(mrow(( mfrac(n k) )))",
    r"{a \over b}": "mrow(mfrac(a b))",
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}": "mrow(( mtable(mtr(mtd(1) mtd(2)) mtr(mtd(3) mtd(4))) ))",
    r"\begin{cases} 1 & x \\ 2 & y \end{cases}": "mrow({ mtable(mtr(mtd(1) mtd(x)) mtr(mtd(2) mtd(y))))",
    r"a &= b \\ &= c": "mtable(mtr(mtd(a) mtd(= b)) mtr(mtd() mtd(= c)))",
    r"\boxed{\frac{1}{2}}": "mrow(mrow(mfrac(1 2)))",
    r"\overline{AB}": "mrow(mrow(A B))",
    r"x \equiv 3 \pmod 7": "x ≡ 3 mspace() ( mod mspace() 7 )",
    r"\not\in": "∉",
    r"1{,}000": "1 , 000",
    r"\operatorname{lcm}(a,b)": "lcm ( a , b )",
    r"\begin{tabular}{|l|c|} \hline A & $x$ \\ \hline \end{tabular}": "mtable(mtr(mtd(A) mtd(x)))",
}
RAW = (  # what is not known, not whole, or too much
    *(
        r"\foo",
        "{",
        "}",
        "x^",
        "x__2",
        r"\frac{1}",
        r"\left( x",
        r"\begin{matrix} 1",
        r"\begin{matrix} 1 \end{cases}",
        "a & b}",
    ),
    *(
        r"\text{\foo}",
        r"\begin{foo}x\end{foo}",
        r"\renewcommand{\a}{b}",
        r"\href{javascript:1}{x}",
        "x" * 7000,
        "{" * 60 + "}" * 60,
        "\\",
    ),
)


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    return made_page([spoken(0, "think")], tmp_path_factory.mktemp("blank"))


def test_formulas_are_drawn_or_left_as_they_are(blank, tmp_path):
    sources = json.dumps([*DRAWN, *RAW])
    found = run_in_page(blank, tmp_path, f"{TOLD} return {sources}.map(draw)")
    assert dict(zip([*DRAWN, *RAW], found, strict=True)) == DRAWN | dict.fromkeys(RAW)


IN_TEXT = {  # formulas in brackets
    "so $x+1$ is": "so [x+1] is",
    r"so \(x\) and \[y\]": r"so [x] and [y]",
    "it costs $5 and $10 in all": None,
    "it costs $5, or $6 with $x = 2$": "it costs $5, or $6 with [x = 2]",
    "between $5 and $x$": "between $5 and [x]",
    "$100 * 1.005 = $100.50": None,
    "from US$100 to US$200.": None,
    r"it costs \$5 and \$6": "it costs [$]5 and [$]6",
    r"costs $\$$1500": r"costs [\$]1500",
    "the $ n$-th and $ x + y $ of $ ABC$": "the [ n]-th and [ x + y ] of [ ABC]",
    "$$a$$ $b$": "[a] [b]",
    "a `${name}${other}` of code": None,
    "$the area of it$": None,
    "half $x + ": None,
    r"half \(x": None,
    "two\n\nparagraphs $x\n\ny$ apart": None,
    r"unknown $\foo$ but $\pi$": r"unknown $\foo$ but [\pi]",
    r"so \boxed{\frac{1}{2}}.": r"so [\boxed{\frac{1}{2}}].",
    r"\begin{align*} a &= b \end{align*} and": r"[\begin{align*} a &= b \end{align*}] and",
    r"\begin{split}\begin{split} b \end{split}\end{split}.": r"[\begin{split}\begin{split} b \end{split}\end{split}].",
    r"\begin{itemize} a \end{itemize}": None,
    r"a \\[2pt] b \\(c\\) d": None,
    r"\textbf{Answer:} 7": "[Answer:] 7",
    "Ω — 中文 $x$ \U0001f600": "Ω — 中文 [x] \U0001f600",
}


def test_where_formulas_are(blank, tmp_path):
    script = f"""
        const source = (node) => (node.querySelector("math") ?? node).getAttribute("title") ?? node.textContent;
        const shown = (node) => `[${{typeof node === "string" ? node : source(node)}}]`;
        return {json.dumps([*IN_TEXT])}.map((text) => {{
            let at = 0, words = "";
            for (const one of formulasIn(text)) {{ words += text.slice(at, one.from) + shown(one.node); at = one.to; }}
            return words + text.slice(at);
        }});"""
    found = dict(zip(IN_TEXT, run_in_page(blank, tmp_path, script), strict=True))
    assert found == {text: words or text for text, words in IN_TEXT.items()}


ASY = "[asy]\n" + "draw((0,0)--(1,1));\n" * 20 + "[/asy]"
START = r"Let me think: $\frac{1}{2}$ of \(x^2\), so "


def talk():
    """A problem with formulas everywhere, cut within one."""
    whole = START + r"\[ y = \sqrt{2} \]" + "\nWait, that is $5."
    inside = whole.index(r"\sqrt")
    known = {"question": f"What is $x$?\n{ASY}\nTell.", "gold": r"\frac{1}{2}"}
    return [
        spoken(0, whole[:inside], r"it is $\pi$", False, max_thinking_tokens=inside, end="forced", **known)
        | {"extracted_answer": r"\pi"},
        spoken(0, whole, r"\boxed{\frac12}", **known) | {"extracted_answer": r"\frac12"},
    ]


def test_a_problem_is_shown_with_its_formulas(tmp_path):
    script = """
        const free = (one) => !one.closest(".stops");
        const drawings = (of) => [...document.querySelectorAll(`${of} math`)].filter(free);
        const maths = (of) => drawings(of).map((one) => one.getAttribute("title"));
        const parts = [".question", ".gold", "#answers", ".thinking", ".answer"];
        const seen = () => [...parts.map(maths), text(".thinking")];
        const first = seen();
        press("f");
        const raw = seen();
        press("f");
        click("#answers tbody tr:first-child button");
        return [first, raw, seen(), text(".thinking.later"), text("#trace .stop")];"""
    first, raw, cut, later, stop = run_in_page(made_page(talk(), tmp_path), tmp_path, script)
    half = r"\frac{1}{2}"
    # the setting that is cut stops within the last formula of the other: that stays as it was written, around its mark
    assert first[:5] == [["x"], [half], [r"\pi", r"\frac12"], [half, "x^2"], [r"\boxed{\frac12}"]]
    assert r"so \[ y = " in first[5] and r"\sqrt{2} \]" in first[5]
    assert raw[:5] == [[], [], [], [], []] and r"$\frac{1}{2}$ of \(x^2\), so \[ y =" in raw[5]
    assert cut[3:5] == [[half, "x^2"], [r"\pi"]] and cut[5].endswith(r"so \[ y = ")
    assert later == r"\sqrt{2} \]" + "\nWait, that is $5." + stop and stop.startswith("natural end: ")


def test_what_is_searched_for_is_shown_as_it_is_written(tmp_path):
    script = """
        const found = () => [...document.querySelectorAll(".thinking math")].filter((one) => !one.closest(".stops"));
        const maths = () => found().map((one) => one.getAttribute("title"));
        const marked = () => CSS.highlights.get("found")?.size ?? 0;
        const seen = [];
        for (const words of ["frac{1}{2}$ of", "x^2", "draw((0,0)", ""]) {
            update({ query: words });
            seen.push([maths(), visible.length, marked(), document.querySelector(".drawing").open]);
        }
        return seen;"""
    found = run_in_page(made_page(talk(), tmp_path), tmp_path, script)
    half = r"\frac{1}{2}"
    assert found == [
        [["x^2"], 1, 1, False],
        [[half], 1, 1, False],
        [[half, "x^2"], 1, 20, True],
        [[half, "x^2"], 1, 0, False],
    ]


DRAWINGS = {
    f"See {ASY} there": "See {drawing in Asymptote, 22 lines of code} there",
    f"{ASY} and $x$ {ASY}": "{drawing in Asymptote, 22 lines of code} and x {drawing in Asymptote, 22 lines of code}",
    '[asy]\nlabel("$A$");\n[/asy]\nEnd': "{drawing in Asymptote, 3 lines of code}End",
    "\\begin{tikzpicture}\n\\draw (0,0);\n\\end{tikzpicture}": "{drawing in TikZ, 3 lines of code}",
    "<ASY>\ndraw(x);\n</ASY>": "{drawing in Asymptote, 3 lines of code}",
    "```asy\ndraw(x);\n```": "{drawing in Asymptote, 3 lines of code}",
    '<svg width="9"><path d="M0"/></svg>': "{drawing in SVG, 1 line of code}",
    "\u0130 [asy]x[/asy]": "\u0130 {drawing in Asymptote, 1 line of code}",  # longer as a small letter
    "[asy] without an end": "[asy] without an end",
    "no drawing": "no drawing",
}


def test_drawings_are_folded(tmp_path):
    records = [spoken(i, "so " + question, question=question) for i, question in enumerate(DRAWINGS)]
    script = """
        const seen = [];
        for (const _ of problems) {
            const code = all(".question details code").map((one) => one.textContent);
            const unfolded = all("details[open]").length;
            document.querySelectorAll("details").forEach((one) => one.replaceWith(`{${one.firstChild.textContent}}`));
            seen.push([text(".question"), text(".thinking"), code, unfolded]);
            press("j");
        }
        return seen;"""
    found = run_in_page(made_page(records, tmp_path), tmp_path, script)
    for (question, thinking, code, unfolded), (written, told) in zip(found, DRAWINGS.items(), strict=True):
        assert (question, thinking, unfolded) == (told, f"so {told}", 0)
        assert len(code) == told.count("{drawing") and all(one in written for one in code)


def test_a_long_question_is_folded(tmp_path):
    long = "\n".join(f"line {i} of it" for i in range(60))
    records = [
        spoken("a", "a", question=long),
        spoken("b", "b", question=f"short\n{ASY}"),
        spoken("c", "c", question="word " * 900),
    ]
    script = """
        const folded = () => [all(".question.folded").length, all("button.more").map((one) => one.textContent)];
        const seen = [folded()];
        click("button.more");
        seen.push(folded(), text(".question"));
        press("j");
        seen.push(folded());
        press("j");
        seen.push(folded());
        press("k"); press("k");
        update({ query: "line 59" });
        seen.push(folded());
        return seen;"""
    first, opened, whole, short, wordy, searched = run_in_page(made_page(records, tmp_path), tmp_path, script)
    assert first == [1, ["show the whole question, about 60 lines"]] and opened == [0, ["fold the question"]]
    assert whole == long and short == [0, []] and searched == [0, []]
    assert wordy == [1, ["show the whole question, about 51 lines"]]


def test_hostile_formulas_are_text(tmp_path):
    records = [spoken(i, f"so {text}", text, question=text, gold=text) for i, text in enumerate(HOSTILE_FORMULAS)]
    script = r"""
        const known = new Set(`math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover
            munderover mtable mtr mtd mstyle mphantom`.split(/\s+/));
        const foreign = "#detail img, #detail script, #detail a, #detail [style*=background]";
        const seen = [];
        for (let i = 0; i < problems.length; i++) {
            const inside = [...document.querySelectorAll("math *")];
            const acts = (one) => [...one.attributes].some(({ name }) => name === "href" || name.startsWith("on"));
            const odd = inside.filter((one) => !known.has(one.localName) || acts(one));
            seen.push([odd.length, document.querySelectorAll(foreign).length]);
            press("f");
            seen.at(-1).push(text(".question"), text(".gold bdi"), text(".thinking"));
            press("f");
            press("j");
        }
        return [seen, document.title];"""
    seen, title = run_in_page(made_page(records, tmp_path), tmp_path, script)
    assert title == "a title" and len(seen) == len(HOSTILE_FORMULAS)
    for (odd, foreign, question, gold, thinking), text in zip(seen, HOSTILE_FORMULAS, strict=True):
        assert (odd, foreign) == (0, 0)
        as_read = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if "\ud800" in text else text
        assert (question, gold, thinking) == (text, text, f"so {text}") or as_read != text
