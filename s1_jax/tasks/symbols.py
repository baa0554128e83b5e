"""Tables of signs and names as written with a keyboard, and their LaTeX commands."""

from __future__ import annotations

import re


def _table(pairs: str) -> dict[str, str]:
    r"""Build a table from alternating signs and meanings; a command ends with a space."""
    words = pairs.split()
    ended = [f"{word} " if re.fullmatch(r"\\[A-Za-z]+", word) and word != r"\sqrt" else word for word in words[1::2]]
    return dict(zip(words[::2], ended, strict=True))


GREEK = _table(
    r"α \alpha β \beta γ \gamma δ \delta ε \epsilon ϵ \epsilon ζ \zeta η \eta θ \theta κ \kappa λ \lambda μ \mu ν \nu"
    r" ξ \xi π \pi ρ \rho σ \sigma τ \tau φ \phi ϕ \phi χ \chi ψ \psi ω \omega Γ \Gamma Δ \Delta Θ \Theta Λ \Lambda"
    r" Ξ \Xi Π \Pi Σ \Sigma Φ \Phi Ψ \Psi Ω \Omega"
)
FRACTIONS = {
    sign: rf"\frac{{{numbers[0]}}}{{{numbers[1:]}}}"
    for sign, numbers in zip(
        "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒", "12 13 23 14 34 15 25 35 45 16 56 17 18 38 58 78 19 110".split(), strict=True
    )
}
SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
CHARACTERS = str.maketrans(
    GREEK
    | FRACTIONS
    | dict.fromkeys("−–‐‑‒﹣－", "-")
    | dict.fromkeys("×✕✖", r"\times ")
    | dict.fromkeys("·⋅∙•", r"\cdot ")
    | dict.fromkeys("“”„«»＂", '"')
    | dict.fromkeys("‘’ʼ′", "'")
    | dict.fromkeys(SPACES, " ")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", "")
    | dict(zip("，：；（）［］｛｝＝＋。！０１２３４５６７８９", ",:;()[]{}=+.!0123456789", strict=True))
    | _table(
        r"÷ / ∕ / ⁄ / ∗ * ∞ \infty ≤ \le ⩽ \le ≥ \ge ⩾ \ge ≠ \ne ≈ \approx ± \pm ∓ \mp ∪ \cup ∩ \cap ∅ \emptyset"
        r" ∈ \in ∉ \notin → \to ° ^{\circ} º ^{\circ} … \ldots ∠ \angle ⌊ \lfloor ⌋ \rfloor ⌈ \lceil ⌉ \rceil"
        r" ⟨ \langle ⟩ \rangle ℝ \mathbb{R} ℤ \mathbb{Z} ℚ \mathbb{Q} ℕ \mathbb{N} ℂ \mathbb{C} ∑ \sum ∫ \int"
        r" ∛ \sqrt[3] ∜ \sqrt[4] √ \sqrt"
    )
    | {"¢": r"\text{ cents}"}
)
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni")
LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙᵢₖ", "0123456789+-()nik")
RAISED_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+")
LOWERED_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙᵢₖ]+")
BASES = _table("two 2 three 3 four 4 five 5 six 6 seven 7 eight 8 nine 9 ten 10 eleven 11 twelve 12 sixteen 16")
FUNCTIONS = set("sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan ln log min max gcd lcm det".split())
LETTERS = {name.strip()[1:]: name for name in GREEK.values() if len(name) > 4 or name == "\\pi "}  # "nu" is n times u
NAMES = LETTERS | _table(  # words without a backslash
    r"sqrt \sqrt cbrt \sqrt[3] exp \exp inf \infty infinity \infty infty \infty emptyset \emptyset leq \le geq \ge"
    r" neq \ne asin \arcsin acos \arccos atan \arctan"
)
COMMANDS = (  # synonyms; "" removes the command
    _table(
        r"leq \le geq \ge leqslant \le geqslant \ge le \le ge \ge neq \ne ne \ne varnothing \emptyset ast \cdot"
        r" lt < gt > lbrace \{ rbrace \} lbrack [ rbrack ] degree ^{\circ} dots \ldots tg \tan ctg \cot dollar \$"
        r" lvert | rvert | vert | colon :"
    )
    | dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac")
    | {"land": r"\text{ and }", "lor": r"\text{ or }"}
    | dict.fromkeys("left right big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle limits".split(), "")
    | dict.fromkeys("quad qquad enspace thinspace space nobreakspace".split(), " ")
)
