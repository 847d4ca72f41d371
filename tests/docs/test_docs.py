"""The documentation: its code runs, its commands exist, its links lead somewhere, its tables are
complete."""

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml
from mlflow.store.tracking.abstract_store import AbstractStore
from pydantic import BaseModel, TypeAdapter

import orbiter.train
import orbiter_mlflow
from orbiter.train import Trainer
from orbiter_mlflow import MLflowSettings, MLflowTrainerMixin, names
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.delivery import records
from orbiter_mlflow.delivery.ack import Ack
from orbiter_mlflow.gate.model import Outcome, Test, Verdict
from orbiter_mlflow.gate.policy import Baseline, Comparable, ExamplesPolicy, Gate, MetricPolicy
from orbiter_mlflow.plugin import methods
from pages import (
    ROOT,
    blocks,
    check_commands,
    pages,
    pipeline,
    scripts,
    shows,
)

DOCS = ROOT / "docs"
PAGES = {page.relative_to(ROOT).as_posix(): page for page in pages()}


def test_the_workflow_of_the_example_is_looked_through() -> None:
    (workflow,) = (ROOT / "examples").rglob("*.yml")
    text = workflow.read_text(encoding="utf-8")
    assert sum("orbiter-mlflow check" in script for script in scripts(yaml.safe_load(text))) == 1
    pipeline(text)


def workflows() -> list[tuple[str, dict[Any, Any]]]:
    """The GitHub workflows that users copy."""
    texts = {path.name: path.read_text("utf-8") for path in (ROOT / "examples").rglob("*.yml")}
    texts |= {
        f"{name}:{block.line}": block.text
        for name, page in PAGES.items()
        for block in blocks(page)
        if block.language == "yaml" and "runs-on:" in block.text
    }
    return [(name, yaml.safe_load(text)) for name, text in texts.items()]


@pytest.mark.parametrize(("name", "workflow"), workflows())
def test_a_workflow_to_copy_is_bounded_and_has_only_the_permissions_it_needs(
    name: str, workflow: dict[Any, Any]
) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert {"group", "cancel-in-progress"} == set(workflow["concurrency"])
    triggers = workflow[True]  # YAML reads the key `on` so
    assert "pull_request_target" not in triggers
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        steps = job["steps"]
        comments = [step for step in steps if "comment --github" in step.get("run", "")]
        assert ("pull-requests" in job.get("permissions", {})) == bool(comments)
        for step in comments:
            assert step["env"] == {"GITHUB_TOKEN": "${{ github.token }}"}
            assert step["if"].startswith("${{ !cancelled()")  # also after a regression
        (checkout,) = (step for step in steps if "actions/checkout" in step.get("uses", ""))
        needs_base = any("--baseline-ref" in step.get("run", "") for step in steps)
        assert (checkout["with"].get("fetch-depth") == 0) == needs_base
        assert not checkout["with"]["persist-credentials"]  # the code under test needs no token


def test_pipelines_filter_by_the_attempt_and_not_by_the_commit() -> None:
    """A commit has the runs of earlier attempts too, and that of a checkout may be another one."""
    found = 0
    for text in (
        (ROOT / "examples/ci_gate/.github/workflows/metrics.yml").read_text("utf-8"),
        *(block.text for block in blocks(DOCS / "how-to/ci-gate.md") if block.language == "yaml"),
    ):
        for script in scripts(yaml.safe_load(text)):
            if re.match("orbiter-mlflow (check|bless)", script):
                found += 1
                assert re.search(r"tags.attempt = '\$(ATTEMPT|CI_PIPELINE_ID)'", script)
    assert found == 5


def test_a_pipeline_is_looked_through() -> None:
    text = "a:\n  script: [pip install x, orbiter-mlflow check p --candidate c --jnit f]\n"
    with pytest.raises(click.UsageError, match="jnit"):
        pipeline(text)
    with pytest.raises(AssertionError, match="nothing checks 'frobnicate'"):
        check_commands("python x.py && frobnicate")
    with pytest.raises(click.UsageError, match="backend-stor-uri"):
        check_commands("mlflow server --backend-stor-uri x")


def test_a_sample_is_compared_but_for_its_numbers() -> None:
    assert shows("│ run │ dacbfecb │\nloss 0.5 ↓", "run 12345678\nloss 0.7") == ""
    assert shows("loss 0.5", "accuracy 0.5") == "accuracy 0.5"
    assert shows("b\na", "a\nb") == "b"


# -- links -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"```.*?```", "", PAGES[name].read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (PAGES[name].parent / path).resolve() if path else PAGES[name]
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """What the forge makes of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_links_to_the_ui_lead_to_the_runs() -> None:
    for page in PAGES.values():
        for link in re.findall(r"http://\S+/#/experiments/\S+", page.read_text(encoding="utf-8")):
            assert "runs?workflowType=machine_learning" in link, page


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        if page != DOCS / "README.md":
            assert f"({page.relative_to(DOCS).as_posix()})" in index, page


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("docs/")])
def test_a_page_says_first_what_it_is_for(name: str) -> None:
    title, blank, purpose, *_ = PAGES[name].read_text(encoding="utf-8").split("\n")
    assert title.startswith("# ")
    assert blank == ""
    assert purpose[:1].isalpha()
    assert purpose.endswith((".", ":"))


# -- the site ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a link or an anchor that leads nowhere fails the build."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))  # and one for what is not found
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text)
        assert not [tag for tag in loaded if re.search(r"""=["']?(?:https?:)?//""", tag)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", sheet.read_text()), sheet


# -- tables that are to be complete ----------------------------------------------------------------


def reference(name: str) -> str:
    return (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")


def rows(text: str) -> dict[str, str]:
    """The rows of all tables, by each name in backquotes in their first cell."""
    found: dict[str, str] = {}
    for row in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row.split("|")[1]):
            found.setdefault(name, row)
    return found


def test_every_setting_is_there_with_its_default() -> None:
    table = rows(reference("settings"))
    assert table.keys() >= MLflowSettings.model_fields.keys()
    for name, field in MLflowSettings.model_fields.items():
        default = field.default
        if isinstance(default, bool | float) or (isinstance(default, str) and default):
            shown = json.dumps(default).strip('"').removesuffix(".0")
            assert f"`{shown}`" in table[name], name


def test_every_name_that_is_written_is_there() -> None:
    text = reference("names")
    for constant, name in vars(names).items():
        if constant.isupper() and constant != "BASELINE_NAME" and _is_name(name):
            shown = name.removeprefix("orbiter.") if _is_packed(name) else name
            assert f"`{shown}" in text or f"/{shown}`" in text, name


def _is_packed(name: str) -> bool:
    return any(name.startswith(one) for held in names.PACKS.values() for one in held)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w./]+", value) is not None


def test_every_command_is_there_with_all_its_options() -> None:
    sections = re.split(r"^## ", reference("cli"), flags=re.MULTILINE)
    of = {
        section.partition("\n")[0].strip("`").split()[0]: section for section in sections if section
    }
    for name, command in commands.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"`{parameter.opts[0]}" in of[name], f"{name} {parameter.opts[0]}"


def test_everything_public_is_there(site: Path) -> None:
    page = (site / "reference" / "api.html").read_text(encoding="utf-8")
    for package in (orbiter.train, orbiter_mlflow):
        for name in package.__all__:
            assert re.search(rf'id="{package.__name__}(\.\w+)*\.{name}"', page), name
    for kind in (Trainer, MLflowTrainerMixin):
        for name in vars(kind):
            hook = kind is Trainer and re.match("_on_[a-z]", name)
            if hook or not name.startswith("_"):
                assert re.search(rf'id="[\w.]+\.{kind.__name__}\.{name}"', page), name


def test_the_policy_is_there_key_by_key() -> None:
    text = reference("policy")
    models: tuple[type[BaseModel], ...] = (
        Gate,
        Baseline,
        Comparable,
        MetricPolicy,
        ExamplesPolicy,
    )
    table = rows(text)
    for model in models:
        for name, field in model.model_fields.items():
            assert (field.alias or name) in table, name
    for word in [*Verdict, *Test]:
        assert word.value.lower() in text.lower(), word
    for outcome in Outcome:
        assert f"| {outcome.exit_code} |" in text, outcome


def test_every_method_of_a_store_is_there_with_what_the_prefix_does_to_it() -> None:
    _, _, section = reference("mlflow-clients").partition("## Method by method")
    _, ours, passed_on = section.partition("\n## ")[0].split("\n|---|---|\n")
    sets = [
        frozenset(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1]))
        for row in ours.partition("\n\n")[0].splitlines()
    ]
    known = [value for name, value in vars(methods).items() if name.isupper()]
    assert sorted(map(sorted, sets)) == sorted(map(sorted, known))
    shown = set().union(*sets) | set(re.findall(r"`(\w+)`", passed_on.partition("\n\n")[0]))
    missing = [
        name
        for name, value in inspect.getmembers(AbstractStore, callable)
        if not name.startswith("_") and name not in shown
    ]
    assert not missing, "MLflow has new methods: decide in plugin.methods what they do"


def test_the_journal_is_there_field_by_field() -> None:
    text = reference("journal")
    for kind in get_args(records.Record):
        for field in fields(kind):
            assert f"`{field.name}`" in text, f"{kind.__name__}.{field.name}"
    for key in TypeAdapter(Ack).dump_python(Ack(), by_alias=True):
        assert f"`{key}`" in text, f"Ack.{key}"
