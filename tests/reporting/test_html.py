"""The report is one page without connections, and what records say is text in it, whatever they say."""

import json
import random
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from s1_jax.reporting.cost import cost_of
from s1_jax.reporting.html import inert_json, page, page_data, save_report
from s1_jax.reporting.summary import methods, summarize, to_dict
from s1_jax.runtime import files
from tests.reporting.browser import run_in_page
from tests.reporting.made_up import spoken, spoken_sweep, sweep, undecided

HOSTILE = (
    "</script><script>document.title='taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    "<!-- <script> -->]]>&lt;&amp;\u2028\u2029",
    "\u202eright to left\u202c \u0000 \ud800 \U0001f600 {title} {data} {script}",
    "constructor __proto__ ' \" ` ${1} \\",
)
HOSTILE_FORMULAS = (
    r"$\text{</script><script>document.title='taken'</script><img src=x>}$ then \(a<img src=x onerror=alert(1)>b\)",
    r"\[\href{javascript:document.title='taken'}{x}\] and $\style{background:red}{x} \require{html}\class{best}{x}$",
    "$" + "{" * 5000 + "$ $" + r"\frac" * 3000 + "$ " + r"\left(" * 2000 + r"\(" * 3000 + "$x",
    r"\begin{array}{" * 400 + r"\end{array}" * 3 + "[asy]" * 2000 + r"\boxed{" * 2000,
    r"$\constructor \__proto__ \toString{x}$ \begin{constructor}x\end{constructor} $\text{\constructor}$",
    "$\\mathbb{\U0001d538}\ud800$ and $x\u0000_\u202e2$ and $\\mathcal{__proto__}$",
)


def made_page(records, tmp_path):
    runs = summarize(records)
    summary = to_dict(records, runs, methods(runs, "across"), "across") | {"cost": cost_of(tmp_path, records)}
    return page("a title", page_data(records, runs, summary, {"model": {"path": "some/model"}}))


def four_problems():
    """The sweep's, right with "2 x Wait" only, twice; one always right; one right with a maximum of 4 only."""
    records = spoken_sweep("a-2")
    records += [one | {"correct": True, "extracted_answer": "7"} for one in spoken_sweep("a-10")]
    shortest = {"max_thinking_tokens": 4}
    records += [one | {"correct": shortest.items() <= one.items()} for one in spoken_sweep("b")]
    return records + spoken_sweep("c")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return made_page(four_problems(), tmp_path_factory.mktemp("plain"))


class Elements(HTMLParser):
    """Names and attributes of a page's elements, and the contents of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.found, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.found.append((f"/{tag}", {}))

    def handle_data(self, data):
        if self.found and self.found[-1][0] == "script":
            self.scripts[-1] += data


def test_nothing_is_loaded_and_only_its_own_script_may_run(plain):
    elements = Elements(plain)
    assert not [attrs for _, attrs in elements.found if attrs.keys() & {"src", "srcset", "action", "onclick", "onload"}]
    assert not [tag for tag, _ in elements.found if tag in ("link", "img", "iframe", "object", "base")]
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|innerHTML|eval\(", plain)
    (policy,) = (attrs["content"] for tag, attrs in elements.found if attrs.get("http-equiv"))
    _, script = elements.scripts
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'sha256-")


def test_hostile_texts_are_data():
    for text in HOSTILE:
        written = inert_json({"text": text})
        assert json.loads(written) == {"text": text}
        assert written.isascii() and not set("<>&") & set(written)
    filled = page("{data} <b>", {"text": HOSTILE})
    elements = Elements(filled)
    assert len(elements.scripts) == 2 and json.loads(elements.scripts[0]) == {"text": list(HOSTILE)}
    assert "{data} &lt;b&gt;" in filled


def no_room(_):
    raise OSError("No space left on device")


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path, records = tmp_path / "report.html", sweep()
    path.write_text("old")
    monkeypatch.setattr(files.os, "fsync", no_room)
    runs = summarize(records)
    summary = to_dict(records, runs, [], "across") | {"cost": cost_of(tmp_path, records)}
    with pytest.raises(OSError):
        save_report(path, "a title", records, runs, summary, {})
    assert path.read_text() == "old" and [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_records_without_text_make_a_page_too(tmp_path):
    assert run_in_page(made_page(sweep(), tmp_path), tmp_path, "return all('#list a').length") == 10


def test_tables_and_plot_say_what_the_summary_says(plain, tmp_path):
    script = """return {
        rows: all("#settings tbody tr").map((row) => row.textContent),
        points: all("#chart .point").map((point) => point.getAttribute("aria-label")),
        legend: text("#legend"), methods: text("#methods"), lead: text("#lead"),
    }"""
    found = run_in_page(plain, tmp_path, script)
    assert len(found["rows"]) == 6 and found["rows"][2].startswith("natural end")
    assert "2 x Wait: 75.0% at 93.0 thinking tokens" in found["points"]
    assert "forced maximum" in found["legend"] and 'end ignored, "Hmm"' in found["legend"]
    assert "Wait" in found["methods"] and "75.0%" in found["lead"]


def test_a_problem_is_shown_with_what_was_put_in_and_where_settings_stop(plain, tmp_path):
    script = """return {
        ids: all("#list a").map((row) => row.dataset.problem + row.textContent),
        answers: all("#answers tbody tr").map((row) => row.textContent),
        ignored: all("#trace .ignored").length, put: all("#trace mark").map((one) => one.textContent),
        stops: all("#trace .stop").map((one) => one.textContent), heading: text("#trace h4"),
        question: text(".question"), gold: text(".gold"),
    }"""
    found = run_in_page(plain, tmp_path, script, "#problem=a-2&setting=4")
    assert found["ids"] == ["0a-2", "1a-10", "2b", "3c"]
    assert found["heading"].startswith("max 4") or "Wait" in found["heading"]
    assert found["question"] == "What is a-2?" and found["gold"].endswith("7")
    assert len(found["answers"]) == 6


def test_the_chosen_setting_decides_what_is_read(plain, tmp_path):
    script = """
        const seen = {};
        for (const row of all("#answers tbody tr")) {
            const name = row.querySelector("button").textContent;
            all("#answers button").find((one) => one.textContent === name).click();
            const spoken = document.querySelector(".thinking").cloneNode(true);
            spoken.querySelectorAll(".ignored, .stops").forEach((one) => one.remove());
            seen[name] = {
                thinking: spoken.textContent, answer: text(".answer"), ignored: all("#trace .ignored").length,
                put: all("#trace mark").map((one) => one.textContent), hash: location.hash,
                stops: all("#trace .stop").map((one) => one.textContent),
            };
        }
        return seen;"""
    found = run_in_page(plain, tmp_path, script, "#problem=a-2")
    thought = {one["text"].split("<|im_start|>")[1][5:] for one in spoken_sweep()}
    assert {one["thinking"] for name, one in found.items() if "max" not in name} <= thought
    assert found["max 4"]["thinking"] == "\none" and found["max 4"]["answer"] == "Final Answer: 1<|im_end|>"
    assert (found["2 x Wait"]["ignored"], found["2 x Wait"]["put"]) == (2, ["Wait", "Wait"])
    assert found["1 x Hmm"]["put"] == ["Hmm"]
    assert found["2 x Wait"]["stops"] == ["max 4: 1", "max 20: 5", "natural end: 12", "1 x Wait: 13"]
    assert "setting=" in found["max 4"]["hash"] and "setting=" not in found["2 x Wait"]["hash"], (
        "it opens with the best"
    )


def test_filters(plain, tmp_path):
    expected = {
        "all": ["a-2", "a-10", "b", "c"],
        "gained": ["a-2", "c"],
        "lost": ["b"],
        "never": [],
        "always": ["a-10"],
        "differ": ["a-2", "b", "c"],
    }
    script = """
        const seen = {};
        for (const button of all("[data-filter]")) {
            button.click();
            const ids = all("#list a").map((row) => row.querySelector("bdi").textContent);
            seen[button.dataset.filter] = [ids, button.querySelector(".count").textContent, all("#nothing").length];
        }
        return seen;"""
    found = run_in_page(plain, tmp_path, script)
    assert found == {name: [ids, str(len(ids)), int(not ids)] for name, ids in expected.items()}


def test_undecided_answers_have_a_status_of_their_own(tmp_path):
    records = undecided(four_problems(), "a-2", "c")
    records = [one | {"graded_by": "math"} if one["max_thinking_tokens"] == 4 else one for one in records]
    script = """
        const words = (selector) => all(selector).map((one) => one.textContent);
        const before = {
            lead: text("#lead"), head: words("#settings thead th"), row: words("#settings tbody tr:nth-child(3) td"),
            filters: Object.fromEntries(all("[data-filter]").map((one) => [one.dataset.filter, one.textContent])),
            strip: all("#list a:first-of-type .strip i").map((one) => one.className),
            verdicts: words("#answers .verdict"),
            label: document.querySelector("#list .strip").getAttribute("aria-label"), methods: text("#methods"),
        };
        click("[data-filter=undecided]");
        before.left = words("#list a:not([hidden]) bdi");
        click("#answers tbody tr:nth-child(3) button");
        before.answer = document.querySelector(".answer").className;
        before.stops = all("#trace .stop").map((one) => one.className);
        return before;"""
    found = run_in_page(made_page(records, tmp_path), tmp_path, script, "#problem=a-2&from=2")
    assert found["verdicts"] == ["wrong", "undecided", "undecided", "undecided", "undecided", "right"]
    assert found["strip"] == found["verdicts"]
    assert found["label"] == "right under 1 of 6 settings, undecided under 4"
    assert "75.0%" in found["lead"] and "up to" not in found["lead"], "of the best setting nothing is open"
    assert found["head"][2:4] == ["accuracy", "up to"] and found["head"][-1] == "undecided"
    assert found["row"][1:3] == ["25.0%", "75.0%"] and found["row"][-1] == "2"
    counts = {name: int(re.search("[0-9]+$", words)[0]) for name, words in found["filters"].items()}
    assert counts == {"all": 4, "gained": 0, "lost": 0, "never": 0, "always": 1, "differ": 3, "undecided": 2}
    assert found["left"] == ["a-2", "c"]
    assert found["answer"] == "answer undecided" and "stop undecided" in found["stops"]


def test_of_several_draws_the_undecided_are_counted(tmp_path):
    records = [spoken(0, f"\nsample {s}", str(s), s == 7, sample=s, temperature=0.8) for s in range(8)]
    for one in records[:3]:
        one["graded_by"] = "unparsed"
    script = """return [text("#answers tbody"), all(".draws button").map((one) => one.className), text("#lead"),
        document.querySelector(".strip i").className, document.querySelector(".strip i").getAttribute("style")]"""
    answers, draws, lead, cell, style = run_in_page(made_page(records, tmp_path), tmp_path, script)
    assert "1 of 8 right, 3 undecided" in answers and draws == ["undecided"] * 3 + ["wrong"] * 4 + ["right"]
    assert lead.endswith("up to 50.0% if the 3 undecided answers are right.")
    assert cell == "part" and "--right: 12.5%" in style and "--decided: 50%" in style


LEADS = {
    "No answer is right under any setting: 0.0%, 95%": [
        spoken(0, "a", "8", False),
        spoken(0, "ab", "8", False, num_ignore=1),
    ],
    "No answer is right: 0.0%, 95%": [spoken(0, "a", "8", False)],
    "Accuracy: 100.0% at 1.0 thinking tokens (natural end), 95%": [spoken(0, "a")],
    "Every setting: 100.0%, 95%": [spoken(0, "a"), spoken(0, "ab", num_ignore=1)],
    "Best: 100.0% under 2 of 3 settings, with the fewest thinking tokens at 1.0 thinking tokens (natural end), 95%": [
        *(spoken(0, "a"), spoken(0, "ab", num_ignore=1)),
        spoken(0, "abc", "8", False, num_ignore=2),
    ],
    "Best: 100.0% at 2.0 thinking tokens (1 x Wait), 95%": [spoken(0, "a", "8", False), spoken(0, "ab", num_ignore=1)],
}


def test_only_what_is_best_is_called_so(plain, tmp_path):
    cases = [to_dict(records, summarize(records), [], "across")["runs"] for records in LEADS.values()]
    script = f"""return {json.dumps(cases)}.map((of) => {{
        runs.splice(0, runs.length, ...of);
        const words = el("p", {{}}, lead(runs[[...runs.keys()].sort(better)[0]]));
        return [words.textContent, words.querySelectorAll(".best").length];
    }});"""
    for (lead, praised), words in zip(run_in_page(plain, tmp_path, script), LEADS, strict=True):
        assert lead.startswith(words) and praised == words.startswith("Best"), lead


def test_what_is_open_where_nothing_is_right(tmp_path):
    records = undecided([spoken(0, "a", "8", False), spoken(1, "b", "8", False)], 1)
    assert run_in_page(made_page(records, tmp_path), tmp_path, "return text('#lead')").endswith(" 1 is undecided.")


def test_a_point_of_the_plot_tells_its_run_and_selects_it(plain, tmp_path):
    script = """
        const box = document.querySelector("#chart").getBoundingClientRect();
        const point = all("#chart .point").find((one) => one.getAttribute("aria-label").startsWith("max 20:"));
        const [, x, y] = point.getAttribute("d").match(/M([0-9.]+) ([0-9.]+)/).map(Number);
        const at = { bubbles: true, clientX: box.left + x, clientY: box.top + y };
        document.querySelector("#chart svg").dispatchEvent(new PointerEvent("pointermove", at));
        const hovered = text(".tip");
        document.querySelector("#chart svg").dispatchEvent(new MouseEvent("click", at));
        const clicked = [text("#settings tr.chosen th"), text("#trace h4"), all("#chart .point.chosen").length];
        document.querySelector("#chart svg").dispatchEvent(new PointerEvent("pointerleave"));
        return [hovered, all(".tip").length, clicked];"""
    hovered, shown, (row, heading, marked) = run_in_page(plain, tmp_path, script)
    assert "20.0 thinking tokens" in hovered and "25.0% (4.6 to 69.9)" in hovered and "4 cut at its maximum" in hovered
    assert shown == 0 and row == "max 20" and heading.startswith("max 20") and marked == 1


def test_a_cell_of_a_strip_selects_problem_and_setting(plain, tmp_path):
    script = """
        click("#list a:nth-of-type(3) .strip i:nth-child(2)");
        const first = [text("h3"), text("#trace h4")];
        click("#list a:nth-of-type(1) bdi");
        return [...first, text("h3"), text("#trace h4"), column.selectorText];"""
    problem, setting, after, same, rule = run_in_page(plain, tmp_path, script)
    assert (problem, after, rule) == ("b", "a-2", ".strip i:nth-child(2)")
    assert setting.startswith("max 20") and same.startswith("max 20")


def test_search_keys_and_links(plain, tmp_path):
    script = """
        const here = () => new URLSearchParams(location.hash.slice(1)).get("problem");
        const seen = [text("h3")];
        for (const key of ["j", "j", "j", "j", "k"]) { press(key); seen.push(here()); }
        press("ArrowDown"); // nothing is being read yet
        seen.push(here());
        document.querySelector("#list a[aria-current]").focus();
        press("ArrowUp");
        seen.push(here(), document.activeElement.dataset.problem, all("#list a[tabindex='0']").length);
        press("/");
        seen.push(document.activeElement.id);
        document.activeElement.value = "WHAT IS B";
        document.activeElement.dispatchEvent(new Event("input"));
        await later(400);
        seen.push(here(), all("#list a").length, CSS.highlights.get("found")?.size > 0);
        return seen;"""
    expected = ["a-2", "a-10", "b", "c", "c", "b", "b", "a-10", "1", 1, "query", "b", 1, True]
    assert run_in_page(plain, tmp_path, script) == expected
    script = (
        "return [text('h3'), document.querySelector('#query').value, new URLSearchParams(location.hash).get('setting')]"
    )
    assert run_in_page(plain, tmp_path, script, "#problem=b&query=twelve&setting=3") == ["b", "twelve", "3"]
    assert run_in_page(plain, tmp_path, script, "#problem=nowhere&setting=99&filter=constructor")[0] == "a-2"


def test_samples_are_told_apart(tmp_path):
    records = [spoken(0, f"\nsample {s}", str(s), s == 7, sample=s, temperature=0.8, seed=1) for s in range(8)]
    script = "click('.draws button:last-of-type'); return [text('.thinking'), text('#answers tbody'), location.hash]"
    thinking, answers, address = run_in_page(made_page(records, tmp_path), tmp_path, script)
    assert thinking == "\nsample 7" and "1 of 8 right" in answers and "draw=7" in address


def test_seeds_are_told_apart(tmp_path):
    records = [
        spoken(0, f"\n{seed} and {s}", str(s), s == 1, sample=s, temperature=0.8, seed=seed)
        for seed in (3, 5)
        for s in range(2)
    ]
    places = (".draws", ".thinking", "#answers tbody th", "#settings tbody", "#settings thead")
    script = f"click('.draws button:nth-of-type(3)'); return {list(places)}.map(text);"
    buttons, thinking, answer, row, head = run_in_page(made_page(records, tmp_path), tmp_path, script)
    assert buttons == "seed / sample 3 / 13 / 25 / 15 / 2" and thinking == "\n5 and 0"
    assert answer == "T 0.8, seed 5, sample 1"
    assert row.startswith("T 0.8, 2 samples, 2 seeds") and "± 0.0" in row and "between seeds" in head


def test_in_the_browser_hostile_texts_are_text(tmp_path):
    rng = random.Random(0)
    records = []
    for i, text in enumerate(HOSTILE):
        shuffled = "".join(rng.sample(text, len(text)))
        fields = {"question": text, "gold": text, "num_ignore": 1, "ignore_string": text, "ignores_used": 1}
        records.append(spoken(f"{i} {text}", f"so {text} {shuffled}", text, **fields))
    made = made_page(records, tmp_path)
    script = """
        const seen = [];
        for (let i = 0; i < 5; i++) {
            click("#answers button"); // each has a setting of its own
            const name = document.querySelector("#list a[aria-current] bdi").title;
            seen.push([text(".question"), text(".gold bdi"), name, text(".thinking"), text(".answer")]);
            press("j");
        }
        return [seen, document.title, document.querySelectorAll("img").length];"""
    seen, title, images = run_in_page(made, tmp_path, script)
    assert (title, images) == ("a title", 0)
    for (question, gold, name, thinking, answer), one in zip(seen, records, strict=True):
        assert (question, gold, name) == (one["question"], one["gold"], one["problem_id"])
        told = "".join(map(chr, one["thinking_token_ids"]))
        assert thinking.replace("end ignored", "") == told and answer == f" {one['extracted_answer']}<|im_end|>"
