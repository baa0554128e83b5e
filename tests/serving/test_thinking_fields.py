"""Every way to say whether and how long to think, which of them disagree, and the server's defaults and limits."""

from dataclasses import replace

import pytest

from s1_jax.config import BudgetConfig
from s1_jax.serving.thinking import EFFORTS, NAMES
from tests.serving.bodies import CHAT, MESSAGES, TEXT, offer, read, refused

DEFAULT = BudgetConfig()
MAX_50 = BudgetConfig(max_thinking_tokens=50)
OFF = {
    "enable_thinking": {"enable_thinking": False},
    "thinking_budget": {"thinking_budget": 0},
    "thinking_token_budget": {"thinking_token_budget": 0},
    "chat_template_kwargs.enable_thinking": {"chat_template_kwargs": {"enable_thinking": False}},
    "reasoning.enabled": {"reasoning": {"enabled": False}},
    "reasoning.effort": {"reasoning": {"effort": "none"}},
    "reasoning_effort": {"reasoning_effort": "none"},
    "thinking.type": {"thinking": {"type": "disabled"}},
}
ON = {
    "enable_thinking": {"enable_thinking": True},
    "chat_template_kwargs.enable_thinking": {"chat_template_kwargs": {"enable_thinking": True}},
    "reasoning.enabled": {"reasoning": {"enabled": True, "exclude": False}},
    "thinking.type": {"thinking": {"type": "enabled"}},
}
LIMITED = {  # to 50 thinking tokens
    "thinking.max_tokens": {"thinking": {"max_tokens": 50}},
    "thinking.budget_tokens": {"thinking": {"budget_tokens": 50}},
    "thinking_token_budget": {"thinking_token_budget": 50},
    "thinking_budget": {"thinking_budget": 50},
    "reasoning.max_tokens": {"reasoning": {"max_tokens": 50}},
    "reasoning.effort": {"reasoning": {"effort": "low"}},
    "reasoning_effort": {"reasoning_effort": "low"},
}
UNLIMITED = {
    "thinking.max_tokens": {"thinking": {"max_tokens": -1}},
    "thinking_token_budget": {"thinking_token_budget": -1},
    "thinking_budget": {"thinking_budget": -1},
    "reasoning_effort": {"reasoning_effort": "xhigh"},
}
OWN = {
    "min_tokens": 5,
    "num_ignore": 2,
    "ignore_string": ["Wait", "Hmm"],
    "newline_grace": 0.1,
    "end_bias": 2.5,
    "notice_fractions": [0.25, 0.5],
    "notices": ["a quarter", "half"],
    "banned_words": ["wait"],
    "max_repetitions": 3,
}


def terms_of(**sections):
    return offer(effort={"low": 50}, **sections)


def of(terms=None, path=CHAT, **given):
    """Whether a request thinks, and its budget; the engine takes no budget where it does not."""
    (request,) = read(path, terms or terms_of(), **given).requests
    assert request.thinking or request.budget == DEFAULT
    return request.thinking, request.budget


def merged(one, other):
    """Two bodies as one: objects of the same name are joined."""
    both = one.keys() & other.keys()
    return one | other | {name: one[name] | other[name] for name in both if isinstance(one[name], dict)}


def agree(one, other):
    """Whether two bodies can be joined without one of them losing a field."""
    joined = merged(one, other)
    return merged(joined, one) == joined and merged(joined, other) == joined


def test_who_says_nothing_gets_the_server_s_defaults():
    budget = {"min_thinking_tokens": 3, "max_thinking_tokens": 70, "num_ignore": 1}
    assert of() == (True, DEFAULT)
    assert of(terms_of(thinking=False)) == (False, DEFAULT)
    for path in (CHAT, MESSAGES):
        assert of(terms_of(budget=budget), path) == (True, BudgetConfig(**budget))
        for said in ({}, {"type": "adaptive"}, {"type": "adaptive", "display": "summarized"}):
            assert of(terms_of(budget=budget), path, thinking=said) == (True, BudgetConfig(**budget))
            assert of(terms_of(budget=budget, thinking=False), path, thinking=said) == (False, DEFAULT)
    for said in ({"chat_template_kwargs": {}}, {"reasoning": {}}, {"reasoning": {"exclude": False}}):
        assert of(terms_of(budget=budget), **said) == (True, BudgetConfig(**budget))


def test_completions_think_only_if_they_say_so():
    assert of(path=TEXT) == (False, DEFAULT)
    for given in (*ON.values(), *LIMITED.values(), {"thinking": {"min_tokens": 2}}):
        assert of(path=TEXT, **given)[0]
    for given in OFF.values():
        assert of(path=TEXT, **given) == (False, DEFAULT)


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize("given", OFF.values(), ids=OFF)
def test_every_way_to_turn_thinking_off(given, default):
    assert of(terms_of(thinking=default, budget={"max_thinking_tokens": 70}), **given) == (False, DEFAULT)


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize("given", ON.values(), ids=ON)
def test_every_way_to_turn_it_on(given, default):
    budget = {"max_thinking_tokens": 70}
    assert of(terms_of(thinking=default, budget=budget), **given) == (True, BudgetConfig(**budget))


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize("given", LIMITED.values(), ids=LIMITED)
def test_every_way_to_limit_it(given, default):
    assert of(terms_of(thinking=default, budget={"max_thinking_tokens": 70}), **given) == (True, MAX_50)


@pytest.mark.parametrize("given", UNLIMITED.values(), ids=UNLIMITED)
def test_every_way_to_lift_the_maximum(given):
    assert of(terms_of(budget={"max_thinking_tokens": 70}), **given) == (True, DEFAULT)
    limited = terms_of(limits={"max_thinking_tokens": 90})
    assert of(limited, **given) == (True, BudgetConfig(max_thinking_tokens=90)), "the limit becomes the maximum"


@pytest.mark.parametrize("effort", EFFORTS)
def test_efforts_are_looked_up_and_lowered_to_the_limit(effort):
    table = offer().config.effort
    for limit in (None, 1000):
        terms = offer(limits={"max_thinking_tokens": limit})
        for given in ({"reasoning_effort": effort}, {"reasoning": {"effort": effort}}):
            thinks, budget = of(terms, **given)
            assert thinks == (effort != "none")
            if thinks:
                own = getattr(table, effort)
                assert budget.max_thinking_tokens == min((n for n in (own, limit) if n is not None), default=None)


def test_own_maximum_of_zero_cuts_thinking_at_once():
    assert of(thinking={"max_tokens": 0}) == (True, BudgetConfig(max_thinking_tokens=0))


def test_anthropic_s_own_way():
    assert of(path=MESSAGES, thinking={"type": "enabled", "budget_tokens": 50}) == (True, MAX_50)
    assert of(path=MESSAGES, thinking={"type": "disabled"}) == (False, DEFAULT)
    assert of(path=MESSAGES, thinking={"max_tokens": 400}) == (True, BudgetConfig(max_thinking_tokens=400))
    for tokens in (100, 101):
        error = refused(MESSAGES, thinking={"type": "enabled", "budget_tokens": tokens})
        assert error.message == f"thinking.budget_tokens is {tokens}; it must be below max_tokens, which is 100"


def test_every_option_of_a_budget():
    thinks, budget = of(terms_of(budget={"max_thinking_tokens": 70}), thinking=OWN)
    assert thinks
    assert budget == BudgetConfig(
        min_thinking_tokens=5,
        max_thinking_tokens=70,
        num_ignore=2,
        ignore_string=("Wait", "Hmm"),
        newline_grace=0.1,
        end_bias=2.5,
        notice_fractions=(0.25, 0.5),
        notices=("a quarter", "half"),
        banned_words=("wait",),
        max_repetitions=3,
    )
    assert NAMES.keys() == vars(DEFAULT).keys() - {"forcing"}


def test_spellings_that_agree():
    for one in LIMITED.values():
        for other in (*LIMITED.values(), *ON.values()):
            if agree(one, other):
                assert of(**merged(one, other)) == (True, MAX_50)
    for one in OFF.values():
        for other in OFF.values():
            if agree(one, other):
                assert of(**merged(one, other)) == (False, DEFAULT)


@pytest.mark.parametrize("off", OFF)
def test_a_budget_without_thinking_is_refused(off):
    own = {f"thinking.{name}": {"thinking": {name: value}} for name, value in OWN.items()}
    for name, given in (ON | LIMITED | UNLIMITED | own).items():
        if agree(OFF[off], given):
            error = refused(CHAT, terms_of(), **merged(OFF[off], given))
            assert error.status == 400 and error.param == off
            assert f"{name} " in error.message and f"{off} " in error.message and "turns it off" in error.message


def test_different_maxima_are_refused():
    checked = 0
    for first, given in LIMITED.items():
        for second, other in (LIMITED | UNLIMITED).items():
            other = {"reasoning_effort": "medium"} if second == "reasoning_effort" else other
            for name, value in other.items():  # as 60
                if isinstance(value, dict):
                    other = {name: {k: 60 if v == 50 else "high" if v == "low" else v for k, v in value.items()}}
                elif value == 50:
                    other = {name: 60}
            if agree(given, other):
                error = refused(CHAT, terms_of(), **merged(given, other))
                assert f"{first} " in error.message and f"{second} " in error.message
                assert "disagree" in error.message and error.param in (first, second)
                checked += 1
    assert checked > 30


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"thinking": True}, "thinking is true; it must be an object"),
        ({"thinking": {"tokens": 5}}, "the field 'thinking.tokens' is not supported"),
        ({"thinking": {"forcing": True}}, "the field 'thinking.forcing' is not supported"),
        ({"thinking": {"type": "on"}}, "thinking.type is 'on'; it must be 'enabled', 'disabled' or 'adaptive'"),
        ({"thinking": {"display": "omitted"}}, "thinking.display is 'omitted'; it must be 'summarized'"),
        ({"thinking": {"budget_tokens": 0}}, "thinking.budget_tokens is 0; it must be a whole number of at least 1"),
        ({"thinking": {"max_tokens": -5}}, "thinking.max_tokens is -5; it must be a whole number of at least 0, or -1"),
        ({"thinking": {"max_tokens": "9"}}, "thinking.max_tokens is '9'; it must be a whole number"),
        ({"thinking": {"max_tokens": 2**31}}, "thinking.max_tokens is 2147483648; it must be a whole number"),
        ({"thinking": {"min_tokens": -1}}, "thinking.min_tokens is -1; it must be a whole number of at least 0"),
        ({"thinking": {"num_ignore": 1.0}}, "thinking.num_ignore is 1.0; it must be a whole number of at least 0"),
        ({"thinking": {"ignore_string": 5}}, "thinking.ignore_string is 5; it must be a string or a list of strings"),
        ({"thinking": {"ignore_string": []}}, "thinking.ignore_string has 0 strings; between 1 and 8"),
        ({"thinking": {"ignore_string": "a b " * 9999}}, "thinking.ignore_string 'a b a b"),
        ({"thinking": {"newline_grace": 0.5}}, "thinking.newline_grace is 0.5; it must be a number from 0 to 0.1"),
        ({"thinking": {"end_bias": -1}}, "thinking.end_bias is -1.0; it must be a number from 0 to"),
        ({"thinking": {"end_bias": 1}}, "thinking.end_bias 1.0 rises towards thinking.max_tokens; give one"),
        ({"thinking": {"notices": ["a"]}}, "there are 1 thinking.notices and 0 "),
        (
            {"thinking": {"notices": ["a"], "notice_fractions": [2], "max_tokens": 9}},
            "thinking.notice_fractions[0] is 2.0; it must be a number above 0 and below 1",
        ),
        ({"thinking": {"notices": ["a"], "notice_fractions": [0.5]}}, "thinking.notice_fractions are fractions of"),
        (
            {"thinking": {"notices": ["a " * 80], "notice_fractions": [0.5], "max_tokens": 9}},
            "the notice 'a a",
        ),
        ({"thinking": {"banned_words": "wait"}}, "thinking.banned_words is 'wait'; it must be a list of strings"),
        ({"thinking": {"max_repetitions": 1}}, "thinking.max_repetitions is 1; it must be a whole number from 2 to"),
        (
            {"thinking": {"min_tokens": 10, "max_tokens": 5}},
            "thinking.min_tokens 10 is above thinking.max_tokens 5",
        ),
        ({"thinking": {"min_tokens": 10}, "thinking_budget": 5}, "thinking.min_tokens 10 is above thinking_budget 5"),
        ({"thinking_token_budget": -2}, "thinking_token_budget is -2; it must be a whole number of at least 0, or -1"),
        ({"thinking_budget": True}, "thinking_budget is true; it must be a whole number of at least 0, or -1 for no"),
        ({"enable_thinking": 1}, "enable_thinking is 1; it must be true or false"),
        ({"chat_template_kwargs": {"x": 1}}, "the field 'chat_template_kwargs.x' is not supported"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs is an empty list; it must be an object"),
        ({"reasoning": {"exclude": True}}, "reasoning.exclude is true; it must be false: thinking is always shown"),
        ({"reasoning": {"max_tokens": 0}}, "reasoning.max_tokens is 0; it must be a whole number of at least 1"),
        ({"reasoning": {"effort": "max"}}, "reasoning.effort is 'max'; it must be one of none, minimal, low, medium"),
        ({"reasoning_effort": 3}, "reasoning_effort is 3; it must be one of none, minimal, low, medium, high, xhigh"),
    ],
)
def test_wrong_budgets_are_refused_in_the_request_s_words(given, sentence):
    for path in (CHAT, TEXT):
        error = refused(path, **given)
        assert error.status == 400 and error.message.startswith(sentence)


def test_what_contradicts_the_server_s_defaults_is_refused():
    terms = offer(budget={"max_thinking_tokens": 20})
    error = refused(CHAT, terms, thinking={"min_tokens": 30})
    assert error.param == "thinking.min_tokens"
    assert error.message == (
        "thinking.min_tokens 30 is above the server's default thinking.max_tokens 20; a request can give its own"
    )
    assert of(terms, thinking={"min_tokens": 30, "max_tokens": 40})[1].max_thinking_tokens == 40
    terms = offer(budget={"min_thinking_tokens": 30})
    assert refused(CHAT, terms, thinking_budget=20).message == (
        "the server's default thinking.min_tokens 30 is above thinking_budget 20; a request can give its own"
    )
    terms = offer(budget={"end_bias": 2.0, "max_thinking_tokens": 20})
    assert refused(CHAT, terms, thinking_budget=-1).message.startswith(
        "the server's default thinking.end_bias 2.0 rises towards thinking.max_tokens; give one"
    )


def test_the_server_s_limits():
    terms = offer(limits={"max_thinking_tokens": 100, "max_num_ignore": 3}, budget={"max_thinking_tokens": 400})
    assert of(terms) == (True, BudgetConfig(max_thinking_tokens=100))
    assert of(terms, thinking={"max_tokens": 100, "num_ignore": 3})[1].num_ignore == 3
    for name, given in {
        "thinking.max_tokens": {"thinking": {"max_tokens": 101}},
        "thinking.budget_tokens": {"thinking": {"budget_tokens": 101}},
        "thinking_token_budget": {"thinking_token_budget": 101},
        "thinking_budget": {"thinking_budget": 101},
        "reasoning.max_tokens": {"reasoning": {"max_tokens": 101}},
    }.items():
        error = refused(CHAT, terms, **given)
        assert (error.status, error.param) == (400, name)
        assert error.message == f"{name} is 101; it must be at most 100, the server's limit"
    error = refused(CHAT, terms, thinking={"num_ignore": 4})
    assert error.message == "thinking.num_ignore is 4; it must be at most 3, the server's limit"
    error = refused(CHAT, terms, thinking={"min_tokens": 101})
    assert error.message == "thinking.min_tokens 101 is above the server's limit 100"


def test_a_server_s_own_budget_stays_as_it_is():
    terms = offer(budget={"max_thinking_tokens": 40, "num_ignore": 2, "max_repetitions": 5})
    assert of(terms, thinking={"min_tokens": 7})[1] == replace(terms.config.budget, min_thinking_tokens=7)
    assert of(terms, thinking={"num_ignore": 0})[1] == replace(terms.config.budget, num_ignore=0)
