"""Our runs in the MLflow UI, as a person sees them: a real server, a real browser, our own links.

One test for each training, since starting a browser takes longer than all the looking.
`ORBITER_SCREENSHOTS` names a folder for pictures of each page.
"""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.entities import Trace
from playwright.sync_api import Locator, Page, expect, sync_playwright
from rich.console import Console
from rich.text import Text

from example_store import EXAMPLE, ExampleStore, replay
from orbiter_mlflow.ui.links import compare_page, run_page, traces_page
from pages import blocks
from paths import ROOT
from servers import running_server
from waiting import eventually

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ROLLOUTS = ROOT / "docs" / "how-to" / "rollouts.md"
VERSION = tuple(int(part) for part in version("mlflow").split(".")[:2])
PATIENCE = 30_000
"""Milliseconds: the UI loads megabytes of scripts, on a machine that tests other things too."""
NO_ASSISTANT = """
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
"""


@pytest.fixture
def example(empty_store: Path, tmp_path: Path) -> Iterator[ExampleStore]:
    """The example's runs, served."""
    (tmp_path / "example").mkdir()
    store = replay(empty_store, tmp_path / "example")
    with running_server(store.uri, tmp_path) as uri:
        yield ExampleStore(uri, store.folder)


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a browser without the assistant, which covers a third of it."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(viewport={"width": 1500, "height": 850})
        context.set_default_timeout(PATIENCE)
        context.add_init_script(NO_ASSISTANT)
        yield context.new_page()
        browser.close()


@pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt install chromium")
@pytest.mark.skipif(VERSION < (3, 17), reason="looks for elements of the UI of MLflow 3.17")
def test_what_a_person_sees(
    example: ExampleStore, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = printed_links(example)
    client = MlflowClient(example.uri)
    runs = {run.info.run_name: run.info.run_id for run in client.search_runs(["1"])}

    # The table, by the link that is printed: clicked, as it would be in a terminal or a page.
    page.set_content(f"<a href='{links['See the runs']}'>the runs</a>")
    page.get_by_text("the runs").click()
    row = table_row(page, "lr-0.5-seed-0")
    headings = page.locator(".ag-header-cell").all_inner_texts()
    wanted = {"learning_rate", "entropy_coef", "seed", "eval/accuracy", "eval/loss", "train/loss"}
    assert wanted | {"orbiter.state"} <= set(headings)
    for value in ("0.95", "0.5", "completed"):
        assert value in row.inner_text().split("\n")
    expect(page.get_by_text("11 matching runs")).to_be_visible()
    keep(page, "runs")

    search = page.get_by_placeholder("metrics.rmse < 1")
    search.fill("tags.orbiter.state = 'failed'")
    search.press("Enter")
    expect(page.get_by_text("2 matching runs")).to_be_visible()
    expect(page.get_by_text("diverged", exact=True)).to_be_visible()
    expect(page.get_by_text("killed", exact=True)).to_be_visible()

    # The charts, in a section for each of `train` and `eval`.
    page.goto("about:blank")  # only the part behind the `#` differs: that loads nothing
    page.goto(links["See their curves"])
    for section in ("eval", "train"):
        title = page.get_by_text(section, exact=True).first
        title.scroll_into_view_if_needed()  # charts are made when they come into sight
        expect(page.get_by_role("heading", name=f"{section}/accuracy")).to_be_visible()
        expect(page.get_by_text(f"({section}/accuracy)").first).to_be_visible()  # its legend
    page.get_by_placeholder("Search metric charts").fill("train/(entropy|loss|mean_reward)$")
    expect(page.get_by_role("heading", name="train/accuracy")).to_have_count(0)
    for metric in ("entropy", "loss", "mean_reward"):  # whole curves: their axes have been drawn
        chart = page.get_by_role("heading", name=f"train/{metric}", exact=True)
        expect(chart).to_be_visible()
        expect(page.get_by_text(f"(train/{metric})").first).to_be_visible()
    keep(page, "charts")

    # The page of a run: our description, its datasets.
    run_id = runs["lr-0.5-seed-0"]
    page.goto("about:blank")
    page.goto(run_page(example.uri, "1", run_id))
    expect(page.get_by_text("Trained by")).to_be_visible()
    expect(page.locator("code", has_text=":DemoTrainer")).to_be_visible()
    expect(page.get_by_text(f"orbiter-mlflow reproduce {run_id}")).to_be_visible()
    expect(page.get_by_text("train_data").first).to_be_visible()
    page.get_by_text("Show more").first.click()
    expect(page.locator("td code", has_text="learning_rate")).to_be_visible()
    keep(page, "run")

    # Two runs side by side: only what their configs do not share.
    page.goto("about:blank")
    page.goto(compare_page(example.uri, ["1"], [run_id, runs["lr-0.1-seed-1"]]))
    only_differing = page.get_by_role("switch", name="Parameters - Show diff only")
    parameters = only_differing.locator("xpath=ancestor::*[.//table][1]//table")
    expect(parameters.get_by_text("weight_decay", exact=True)).to_be_visible()
    only_differing.click()
    expect(parameters.get_by_text("weight_decay", exact=True)).to_have_count(0)
    shown = parameters.locator("tr").all_inner_texts()
    assert [line.split("\t") for line in shown if line.strip()] == [
        ["learning_rate", "0.5", "0.1"],
        ["seed", "0", "1"],
    ]
    only_differing.scroll_into_view_if_needed()
    keep(page, "compare")

    # The same pair in the terminal, and the report of the gate.
    monkeypatch.setenv("COLUMNS", "100")
    terminal = example.command("diff", "lr-0.1-seed-0", "lr-0.5-seed-0")
    table = terminal.output.partition("\nrun ")[0]  # without the notes below it
    show_terminal(page, "orbiter-mlflow diff lr-0.1-seed-0 lr-0.5-seed-0", table)
    keep(page, "diff", page.locator("svg"))
    baseline = [f"lr-0.5-seed-{seed}" for seed in range(3)]
    assert example.command("bless", *baseline, "--reason", "release 2").exit_code == 0
    candidate = "attributes.run_name LIKE 'lr-0.1%'"
    report = example.folder / "gate.html"
    policy = str(EXAMPLE / "gate.toml")
    done = example.command("check", policy, "--candidate", candidate, "--html", str(report))
    assert done.exit_code == 1, done.output
    page.goto(report.as_uri())
    expect(page.get_by_text("REGRESSION").first).to_be_visible()
    keep(page, "gate")


@pytest.mark.skipif(BROWSER is None, reason="needs a browser: apt install chromium")
@pytest.mark.skipif(VERSION < (3, 17), reason="looks for elements of the UI of MLflow 3.17")
def test_a_person_finds_the_worst_rollouts_of_a_step(
    server_uri: str, own_folder: Path, page: Page
) -> None:
    # The training of the page on rollouts.
    (program,) = (one for one in blocks(ROLLOUTS) if one.word == "calculator.py")
    (own_folder / "calculator.py").write_text(program.text)
    training = [sys.executable, "calculator.py", "last", "0.9"]
    environ = {**os.environ, "MLFLOW_TRACKING_URI": server_uri}
    subprocess.run(training, env=environ, check=True, timeout=120)
    client = MlflowClient(server_uri)
    experiment = client.get_experiment_by_name("calculator")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    where = {"locations": [experiment.experiment_id], "run_id": run.info.run_id}
    found = eventually(lambda: whole(client.search_traces(**where, max_results=100), 7 * 8))
    rewards = {
        trace.info.request_preview: {one.name: one.value for one in trace.info.assessments}
        for trace in found
        if trace.info.tags["orbiter.step"] == "300"
    }
    wrong = [asked for asked, found in rewards.items() if found["correct"] == 0]
    with_a_tool = [asked for asked in wrong if rewards[asked]["short"] < 1]
    assert 0 < len(with_a_tool) <= len(wrong) < 8

    page.set_viewport_size({"width": 1500, "height": 640})
    page.goto(traces_page(server_uri, experiment.experiment_id, run.info.run_id, "train/000300"))
    expect(page.get_by_text("8 of 56")).to_be_visible()
    for reward in ("correct", "short"):
        expect(page.get_by_text(reward, exact=True).first).to_be_visible()
    page.get_by_role("button", name="Sort").click()
    page.get_by_test_id("sort-select-correct").click()
    page.get_by_role("button", name="Sort").click()
    page.get_by_label("Sort ascending").click()
    first = page.get_by_text(re.compile(r"^What is \d+ \* \d+\?$")).first
    expect(first).to_have_text(re.compile("|".join(map(re.escape, wrong))))
    keep(page, "rollouts")
    page.get_by_text(with_a_tool[0], exact=True).first.click()
    for text in ("turn 1", "multiply", "turn 2", "You are a calculator. Write the result in bold."):
        expect(page.get_by_text(text).first).to_be_visible()
    keep(page, "rollout")


def whole(found: Sequence[Trace], count: int) -> Sequence[Trace] | None:
    """All traces, once there are so many and each has its spans."""
    return found if len(found) == count and all(one.data.spans for one in found) else None


def printed_links(example: ExampleStore) -> dict[str, str]:
    """Heading in the output of `orbiter-mlflow ui` -> the text below it."""
    done = example.command("ui")
    assert done.exit_code == 0, done.output
    found = dict(re.findall(r"^(\S.*):\n  (http\S+)$", done.output, re.MULTILINE))
    assert urlsplit(found["See the runs"]).netloc == urlsplit(example.uri).netloc
    return found


def table_row(page: Page, name: str) -> Locator:
    """The values of a run: AG Grid keeps pinned columns and others in rows of one index."""
    cell = page.locator(".ag-row", has=page.get_by_text(name, exact=True)).first
    index = cell.get_attribute("row-index")
    return page.locator(f".ag-center-cols-container .ag-row[row-index='{index}']")


def show_terminal(page: Page, command: str, output: str) -> None:
    """Show a command and what it prints as a window of a terminal."""
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(Text(f"$ {command}\n{output}"))
    page.set_content(console.export_svg(title="", font_aspect_ratio=0.61))


def keep(page: Page, name: str, part: Locator | None = None) -> None:
    """Keep a picture of the page, or of a part of it, where somebody wants it."""
    folder = os.environ.get("ORBITER_SCREENSHOTS")
    if folder:
        (part or page).screenshot(path=Path(folder) / f"{name}.png")
