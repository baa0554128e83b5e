"""Parts of the reference that are made from the code when the docs are built, so that they cannot go stale.

A page holds a line `<!-- generated: cli -->`; conf.py puts the text of PARTS["cli"] in its place.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import typing
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import tyro
from tyro._docstrings import get_callable_description, get_field_docstring

from s1_jax.api import LoadedModel, load_model
from s1_jax.config import (
    BudgetConfig,
    EndpointConfig,
    EvaluateConfig,
    FormatConfig,
    GradeConfig,
    HostsConfig,
    MeshConfig,
    ModelSource,
    SamplingConfig,
    StoredConfig,
    TrainConfig,
)
from s1_jax.config.convert import ConvertConfig
from s1_jax.config.curate import CurateConfig
from s1_jax.config.generate import GenerateConfig
from s1_jax.config.lm_eval import HarnessConfig, KeywordConfig
from s1_jax.config.options import wanted
from s1_jax.config.plan import PlanConfig
from s1_jax.config.quickstart import QuickstartConfig
from s1_jax.config.serve import ServeConfig
from s1_jax.decoding.engine import Engine
from s1_jax.errors import RunError, UserError
from s1_jax.records.page import records_page
from s1_jax.serving import accepted
from s1_jax.tasks import registry
from s1_jax.tasks.task import Benchmark

PROJECT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "quickstart": QuickstartConfig,
    "train": TrainConfig,
    "plan": PlanConfig,
    "evaluate": EvaluateConfig,
    "generate": GenerateConfig,
    "serve": ServeConfig,
    "grade": GradeConfig,
    "curate": CurateConfig,
    "convert": ConvertConfig,
}
ARGUMENTS = {
    "train": "[CONFIG.py]",
    "plan": "CONFIG.py",
    "evaluate": "[CONFIG.py]",
    "serve": "[CONFIG.py]",
    "grade": "RUN_DIR",
    "curate": "CONFIG.py",
}
BASES = {"plan": TrainConfig}  # whose options a command takes as well, described there
SHARED = (
    ModelSource,
    BudgetConfig,
    SamplingConfig,
    FormatConfig,
    StoredConfig,
    MeshConfig,
    HostsConfig,
    EndpointConfig,
)
HARNESS = {"--model_args": HarnessConfig, "--gen_kwargs": KeywordConfig}
API = (load_model, LoadedModel, Engine, UserError, RunError)
EXAMPLE = re.compile(r"^problem  .*?^verdict  .*?(?=\n\n|\Z)", re.DOTALL | re.MULTILINE)
ACCEPTED = {  # tables of fields that change nothing, by the part of a request that has them
    "Both OpenAI protocols": accepted.OPENAI,
    "Chat completions": {name: one for name, one in accepted.CHAT.items() if name not in accepted.OPENAI},
    "Completions": {name: one for name, one in accepted.TEXT.items() if name not in accepted.OPENAI},
    "Messages": accepted.MESSAGES,
    "`stream_options`": accepted.STREAM_OPTIONS,
    "A message of a chat": accepted.CHAT_MESSAGE,
    "A text of a message": accepted.TEXT_BLOCK,
    "`thinking`": accepted.THINKING,
    "`reasoning`": accepted.REASONING,
}
CONFIG_KINDS = {
    "Quickstart": "quickstart_*",
    "Fine-tuning on TPU": ("s1_*", "qwen3_*"),
    "Sweeps on TPU": "sweep_*",
    "Control and strings on TPU": ("control_*", "strings_*"),
    "Rules around a forced end, on TPU": ("early_stop_*", "notices_*", "nowait_*", "repetitions_*"),
    "Curation": "curate_*",
}


def cli() -> str:
    """Make a table of options for each command and each section."""
    lines: list[str] = []
    for name, cls in COMMANDS.items():
        usage = " ".join(filter(None, ("python -m", f"s1_jax.{name}", ARGUMENTS.get(name), "[options]")))
        lines += [f"## {name}", "", "```text", usage, "```", "", first_sentence(name), ""]
        if base := BASES.get(name):
            lines += ["It takes every option of the run that it plans, and these:", ""]
        lines += sections(cls, "--", skip=base)
    lines += [
        "## lm_eval",
        "",
        "```text",
        "python -m s1_jax.lm_eval --model s1_jax --model_args NAME=VALUE,... --tasks TASK",
        "```",
        "",
    ]
    lines += [first_sentence("lm_eval"), ""]
    for option, cls in HARNESS.items():
        lines += [f"### `{option}`", "", text_of(cls), "", *table(cls, "")]
    lines += ["## Shared sections", "", "These options mean the same in every command that has them.", ""]
    for cls in SHARED:
        name = f"{section_of(cls)} options"
        lines += [f"### {name}", "", text_of(cls), "", *sections(cls, f"--{section_of(cls)}.")]
    return "\n".join(lines)


def sections(cls: type, prefix: str, skip: type | None = None) -> list[str]:
    """Make the table of a class's options, then one for each of its sections; shared sections are linked."""
    lines = table(cls, prefix, skip)
    for field, hint in nested(cls):
        if skip is not None and field.name in {other.name for other in dataclasses.fields(skip)}:
            continue
        name = f"{prefix}{spelled(field.name)}"
        about = get_field_docstring(cls, field.name, ()) or ""
        if shared := next((one for one in SHARED if issubclass(hint, one) or issubclass(one, hint)), None):
            others = ""
            if less := {field.name for field in dataclasses.fields(shared)} - {
                f.name for f in dataclasses.fields(hint)
            }:
                others = f", without `{spelled(less.pop())}`"
            elif own := changed(default_section(field, hint), shared()):
                others = f", with its own defaults ({own})"
            lines += [f"`{name}.*`: see [{section_of(shared)} options](#{section_of(shared)}-options){others}.", ""]
        else:
            lines += [
                f"### {name.lstrip('-')}",
                "",
                " ".join(filter(None, (text_of(hint), about and f"({about})"))),
                "",
            ]
            lines += sections(hint, f"{name}.")
    return lines


def table(cls: type, prefix: str, skip: type | None = None) -> list[str]:
    """Make the table of a class's options that are not sections."""
    hints = typing.get_type_hints(cls, include_extras=True)
    names = {field.name for field, _ in nested(cls)}
    rows = []
    for field in dataclasses.fields(cls):
        hidden = tyro.conf.Suppress in getattr(hints[field.name], "__metadata__", ())
        inherited = skip is not None and field.name in {other.name for other in dataclasses.fields(skip)}
        if field.name not in names and not hidden and not inherited:
            text = get_field_docstring(cls, field.name, ()) or ""
            option = f"`{prefix}{spelled(field.name) if prefix else field.name}`"
            rows.append(f"| {option} | {values_of(hints[field.name])} | {default_of(field)} | {cell(text)} |")
    if not rows:
        return []
    return ["| option | value | default | |", "|---|---|---|---|", *rows, ""]


def nested(cls: type) -> list[tuple[Any, type]]:
    """List the fields that are sections, with their classes."""
    hints = typing.get_type_hints(cls)
    return [
        (field, hints[field.name]) for field in dataclasses.fields(cls) if dataclasses.is_dataclass(hints[field.name])
    ]


def section_of(cls: type) -> str:
    """Return the name of a shared section on this page."""
    return {ModelSource: "model", EndpointConfig: "endpoint"}.get(cls) or cls.__name__.removesuffix("Config").lower()


def default_section(field: Any, hint: type) -> Any:
    """Return the default of a field that is a section."""
    return hint() if field.default is dataclasses.MISSING else field.default


def changed(own: Any, others: Any) -> str:
    """List the defaults in which a section differs from the shared one."""
    names = [
        field.name for field in dataclasses.fields(others) if getattr(own, field.name) != getattr(others, field.name)
    ]
    return ", ".join(f"`{spelled(name)}` {getattr(own, name)}" for name in names)


def values_of(hint: Any) -> str:
    """Say which values an option takes."""
    while typing.get_origin(hint) is typing.Annotated:
        inner, *extras = typing.get_args(hint)
        if any(hasattr(extra, "__contains__") for extra in extras):
            break
        hint = inner
    if typing.get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(hint))
    text = wanted(hint).replace(" that is not blank", "")
    text = re.sub(r"from (\d+) to 1,073,741,824", r"of at least \1", text)
    return cell(re.sub(r"^an? ", "", text).replace("tuple, each a ", "several: "))


def default_of(field: Any) -> str:
    """Format an option's default as the command line spells it."""
    value = field.default
    if value is dataclasses.MISSING:
        return "required"
    if isinstance(value, tuple):
        return f"`{' '.join(map(str, value))}`" if value else "none given"
    if isinstance(value, str):
        return f"`{value.encode('unicode_escape').decode()}`" if value else "empty"
    return f"`{value}`"


def spelled(name: str) -> str:
    """Spell a field's name as the command line does."""
    return name.replace("_", "-")


def cell(text: str) -> str:
    """Make text fit into one cell of a table."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", r"\<")


def text_of(cls: type) -> str:
    """Return a class's description in --help."""
    return " ".join(get_callable_description(cls).split())


def first_sentence(command: str) -> str:
    """Return the first paragraph of a command's docstring, without a command line after a colon.

    The module is not imported, because it may need an extra that the docs do not.
    """
    docstring = ast.get_docstring(ast.parse((PROJECT / "s1_jax" / f"{command}.py").read_text())) or ""
    text = " ".join(docstring.split("\n\n")[0].split())
    return re.sub(r": `python -m [^`]*`\.$", ".", text)


def server() -> str:
    """List the fields of requests that are taken although they change nothing, by where they stand."""
    lines = []
    for name, fields in ACCEPTED.items():
        lines += [f"### {name}", "", "| field | value | why it changes nothing |", "|---|---|---|"]
        lines += [f"| `{field}` | {cell(one.values)} | {cell(one.why)} |" for field, one in fields.items()]
        lines.append("")
    return "\n".join(lines)


def configs() -> str:
    """List each shipped config file with the first line of its docstring, by kind."""
    lines = []
    for kind, patterns in CONFIG_KINDS.items():
        lines += [f"## {kind}", "", "| file | what it runs |", "|---|---|"]
        for pattern in (patterns,) if isinstance(patterns, str) else patterns:
            for path in sorted((PROJECT / "configs").glob(f"{pattern}.py")):
                text = ast.get_docstring(ast.parse(path.read_text())) or ""
                lines.append(f"| `configs/{path.name}` | {cell(text.split(chr(10) * 2)[0])} |")
        lines.append("")
    return "\n".join(lines)


def tasks() -> str:
    """Show the docstring of each task's module: what it has, a worked example, and what was not checked."""
    lines = []
    for module in dict.fromkeys(module_of(task) for task in registry.TASKS.values()):
        names = ", ".join(f"`{name}`" for name, task in registry.TASKS.items() if module_of(task) is module)
        found = EXAMPLE.search(module.__doc__ or "")
        assert found, f"{module.__name__} has no worked example"
        about, notes = found.string[: found.start()], found.string[found.end() :]
        lines += [f"## {names}", "", about.strip(), "", "```text", found[0].strip(), "```", "", notes.strip(), ""]
    return "\n".join(lines)


def module_of(task: Benchmark) -> ModuleType:
    """Return the module that defines a task."""
    modules = [module for _, module in inspect.getmembers(registry, inspect.ismodule)]
    return next(module for module in modules if any(task is value for value in vars(module).values()))


def api() -> str:
    """Write the signature and docstring of each public function, class and method."""
    lines = []
    for one in API:
        lines += [f"## `{one.__name__}`", "", *described(one)]
        for name, member in inspect.getmembers(one, inspect.isfunction) if inspect.isclass(one) else ():
            if not name.startswith("_") and member.__doc__:
                lines += [f"### `{one.__name__}.{name}`", "", *described(member)]
    return "\n".join(lines)


def described(one: Any) -> list[str]:
    """Write a signature in a code block, and the docstring."""
    text = inspect.getdoc(one) or ""
    if inspect.isclass(one) and issubclass(one, Exception):
        return [text, ""]
    signature = signature_of(one) if not inspect.isclass(one) else ""
    code = ["```text", f"{one.__name__}{signature}", "```", ""] if signature else []
    return [*code, text, ""]


def signature_of(function: Any) -> str:
    """Format parameters and result, one parameter per line if they are long; a default that is a config by its name."""
    signature = inspect.signature(function)
    shown, keyword_only = [], False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            shown.append("*")
            keyword_only = True
        default = parameter.default
        text = (
            parameter.name if parameter.annotation is parameter.empty else f"{parameter.name}: {parameter.annotation}"
        )
        if dataclasses.is_dataclass(default):
            text += f" = {type(default).__name__}()"
        elif default is not parameter.empty:
            text += f" = {default!r}"
        shown.append(text)
    result = f" -> {signature.return_annotation}"
    line = f"({', '.join(shown)}){result}"
    return line if len(line) < 80 else "(\n    " + ",\n    ".join(shown) + f",\n){result}"


PARTS = {"cli": cli, "server": server, "configs": configs, "tasks": tasks, "api": api, "records": records_page}
