"""`orbiter-mlflow comment`: one comment for each policy, and the job's summary where none may be.

The events are GitHub's, cut to what matters; the server on loopback stands for GitHub's.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import gate_reports as examples
from github_api import BOT, TOKEN, GitHub, running_github
from orbiter_mlflow.cli.github import MAX_COMMENT, Workflow, publish
from orbiter_mlflow.cli.main import commands
from orbiter_mlflow.errors import GitHubError
from orbiter_mlflow.gate.reports.markdown import marker, render
from paths import ROOT

EVENTS = ROOT / "tests/gate/events"
HEAD = "3f" * 20
SUMMARY = Path("summary.md")

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def github() -> Iterator[GitHub]:
    with running_github() as github:
        yield github


@pytest.fixture
def run(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command on the report of a policy, in a step of a workflow."""

    def comment(
        event: str = "pull_request",
        *,
        text: str | None = None,
        token: str | None = TOKEN,
        **variables: str | None,
    ) -> tuple[int, str]:
        given = {
            "GITHUB_API_URL": f"{github.uri}/api/v3",
            "GITHUB_GRAPHQL_URL": f"{github.uri}/api/graphql",
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_EVENT_NAME": event.partition("_fork")[0],
            "GITHUB_EVENT_PATH": str(EVENTS / f"{event}.json"),
            "GITHUB_REPOSITORY": "example/agent",
            "GITHUB_RUN_ATTEMPT": "2",
            "GITHUB_RUN_ID": "12",
            "GITHUB_SHA": "4d" * 20,
            "GITHUB_STEP_SUMMARY": str(SUMMARY.absolute()),
            "GITHUB_TOKEN": token,
        } | variables
        for name, value in given.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        report = render(examples.REGRESSION) if text is None else text
        Path("gate.md").write_text(report, encoding="utf-8")
        done = CliRunner().invoke(commands, ["comment", "--github", "gate.md"])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert TOKEN not in done.output
        return done.exit_code, done.output

    return comment


# -- the comment -----------------------------------------------------------------------------------


def test_the_comment_is_posted_once_and_then_updated(run: Run, github: GitHub) -> None:
    github.add(17, "someone", "Looks good")
    assert run() == (0, "posted the comment https://github.example/c/101\n")
    (body,) = github.bodies(17)
    assert body.startswith(render(examples.REGRESSION))
    assert run(text=render(examples.PASS)) == (
        0,
        "updated the comment https://github.example/c/101\n",
    )
    (body,) = github.bodies(17)
    assert body.startswith(render(examples.PASS))
    assert not SUMMARY.exists()
    assert set(github.tokens) == {f"Bearer {TOKEN}"}


def test_the_comment_says_which_commit_and_which_attempt_it_is_about(
    run: Run, github: GitHub
) -> None:
    run()
    (body,) = github.bodies(17)
    page = "https://github.example/example/agent/actions/runs/12/attempts/2"
    assert body.endswith(f"\nCommit {HEAD}, [run of the workflow](<{page}>)\n")


def test_each_policy_has_a_comment_of_its_own(run: Run, github: GitHub) -> None:
    other = replace(examples.PASS, policy="other.toml")
    for report in (examples.REGRESSION, other, examples.PASS, other):
        assert run(text=render(report))[0] == 0
    bodies = github.bodies(17)
    assert [body.partition("\n")[0] for body in bodies] == [
        marker(report.policy) for report in (examples.PASS, other)
    ]


def test_what_others_write_is_never_changed_even_with_the_marker(run: Run, github: GitHub) -> None:
    hostile = f"{marker(examples.PASS.policy)}\n\n### PASS: all metrics are within the limits"
    github.add(17, "mallory", hostile)
    github.add(17, BOT, f"quoted:\n{hostile}")
    assert "posted" in run()[1]
    assert github.bodies(17, "mallory") == [hostile]
    assert github.bodies(17)[0] == f"quoted:\n{hostile}"
    assert "updated" in run()[1]
    assert len(github.bodies(17)) == 2


def test_the_comment_is_found_behind_hundreds_of_others(run: Run, github: GitHub) -> None:
    github.page_size = 3
    for at in range(10):
        github.add(17, "someone", f"comment {at}")
    run()
    github.requests.clear()
    assert "updated" in run()[1]
    assert github.requests.count("POST /api/graphql") == 4
    assert len(github.bodies(17)) == 1


def test_a_long_report_is_cut_to_what_github_takes(run: Run, github: GitHub) -> None:
    text = render(examples.REGRESSION) + "a line of a report\n" * 5000
    assert "posted" in run(text=text)[1]
    (body,) = github.bodies(17)
    assert len(body) <= MAX_COMMENT
    assert "a line of a report\n\n_... cut for length" in body
    assert body.endswith("attempts/2>)\n")


# -- events ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "number", "commit"),
    [
        ("pull_request", 17, HEAD),
        ("pull_request_target", 18, HEAD),
        ("issue_comment", 17, "4d" * 20),
    ],
)
def test_events_of_a_pull_request_lead_to_it(
    run: Run, github: GitHub, event: str, number: int, commit: str
) -> None:
    assert run(event)[0] == 0
    (body,) = github.bodies(number)
    assert f"Commit {commit}, " in body


@pytest.mark.parametrize(
    "event", ["push", "workflow_dispatch", "merge_group", "issue_comment_on_issue"]
)
def test_an_event_without_a_pull_request_gets_the_summary(
    run: Run, github: GitHub, event: str
) -> None:
    code, out = run(event)
    assert code == 0
    assert out == (
        f"no comment, but the job's summary has the report: the event {event} belongs to no pull "
        "request\n"
    )
    assert SUMMARY.read_text().startswith(render(examples.REGRESSION))
    assert not github.requests


def test_every_recorded_event_is_tested() -> None:
    source = Path(__file__).read_text()
    for event in EVENTS.iterdir():
        assert f'"{event.stem}"' in source, event


# -- where GitHub takes no comment -----------------------------------------------------------------


@pytest.mark.parametrize("event", ["pull_request_fork", "pull_request_deleted_fork"])
def test_a_fork_whose_token_cannot_write_gets_the_summary(
    run: Run, github: GitHub, event: str
) -> None:
    github.writes = False
    SUMMARY.write_text("before\n")
    code, out = run(event)
    assert code == 0
    assert "GitHub refuses it (403: Resource not accessible by integration), as it does for" in out
    assert SUMMARY.read_text().startswith(f"before\n{render(examples.REGRESSION)}")


def test_a_token_without_the_permission_is_told_which(run: Run, github: GitHub) -> None:
    github.writes = False
    code, out = run()
    assert code == 0
    assert "the job needs `permissions: {pull-requests: write}`" in out
    assert SUMMARY.exists()


@pytest.mark.parametrize("token", [None, "", " \n"])
def test_without_a_token_the_summary_has_the_report(
    run: Run, github: GitHub, token: str | None
) -> None:
    code, out = run(token=token)
    assert code == 0
    assert "$GITHUB_TOKEN is not set" in out
    assert SUMMARY.exists()
    assert not github.requests


def test_a_repository_that_the_token_cannot_see_is_refused(run: Run) -> None:
    code, out = run(GITHUB_REPOSITORY="example/other")
    assert code == 0
    assert "GitHub refuses it (404: x)" in out


def test_without_a_summary_either_it_fails(run: Run, github: GitHub) -> None:
    github.writes = False
    code, out = run(GITHUB_STEP_SUMMARY=None)
    assert code == 1
    assert "there is no $GITHUB_STEP_SUMMARY" in out
    code, out = run(GITHUB_STEP_SUMMARY="no/folder/summary.md")
    assert code == 1
    assert "the summary cannot be written" in out


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"GITHUB_EVENT_PATH": None}, "$GITHUB_EVENT_PATH is not set: run this in a step of"),
        ({"GITHUB_EVENT_PATH": "no.json"}, "the event no.json ($GITHUB_EVENT_PATH) cannot be read"),
        ({"GITHUB_REPOSITORY": "../x/y"}, "$GITHUB_REPOSITORY is '../x/y'"),
        ({"GITHUB_API_URL": "file:///etc/passwd"}, "$GITHUB_API_URL is 'file:///etc/passwd'"),
        ({"GITHUB_RUN_ID": "x"}, "$GITHUB_RUN_ID is 'x'"),
    ],
)
def test_outside_of_a_workflow_it_is_wrong_usage(
    run: Run, variables: dict[str, str | None], expected: str
) -> None:
    code, out = run(**variables)
    assert code == 2
    assert expected in " ".join(out.split())


def test_only_a_report_of_the_gate_is_taken(run: Run, github: GitHub) -> None:
    code, out = run(text="### PASS\n")
    assert code == 2
    assert "gate.md is not a report: write it with `orbiter-mlflow check ... --markdown`" in out
    for name in ("missing.md", "."):
        done = CliRunner().invoke(commands, ["comment", "--github", name])
        assert done.exit_code == 2
        assert f"{name} cannot be read" in done.output
    assert not github.requests


# -- GitHub's faults -------------------------------------------------------------------------------


@pytest.fixture
def workflow(run: Run, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    """The workflow of a pull request, whose comment is not there yet."""
    assert run("push")[0] == 0  # sets the environment
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(EVENTS / "pull_request.json"))
    return Workflow.from_environment(os.environ)


@pytest.mark.parametrize("failing", [[502], [500, 503], [None, 429], [0, 502], [0, None, 0, None]])
def test_a_passing_fault_is_tried_again(
    workflow: Workflow, github: GitHub, failing: list[int | None]
) -> None:
    github.failing = list(failing)
    waits: list[float] = []
    address, updated = publish(workflow, render(examples.PASS), sleep=waits.append)
    assert (address, updated) == ("https://github.example/c/100", False)
    assert waits == [1.0, 3.0, 9.0][: len([status for status in failing if status != 0])]


def test_a_comment_whose_answer_was_lost_is_not_posted_twice(
    workflow: Workflow, github: GitHub
) -> None:
    github.failing = [0, -502]
    _, updated = publish(workflow, render(examples.PASS), sleep=lambda _: None)
    assert updated
    assert len(github.bodies(17)) == 1


def test_a_lasting_fault_is_reported_without_the_token(workflow: Workflow, github: GitHub) -> None:
    github.failing = [503] * 10
    with pytest.raises(GitHubError, match=r"503: no luck for Bearer \[redacted\]"):
        publish(workflow, "x", sleep=lambda _: None)
    assert len(github.requests) == 4
    assert TOKEN not in repr(workflow)


def test_the_token_follows_no_redirect(workflow: Workflow, github: GitHub) -> None:
    with running_github() as elsewhere:
        github.redirect = elsewhere.uri
        with pytest.raises(GitHubError, match="307"):
            publish(workflow, "x", sleep=lambda _: None)
        assert not elsewhere.requests


def test_an_answer_that_is_not_github_s_is_reported(workflow: Workflow, github: GitHub) -> None:
    strange = replace(
        workflow, graphql=f"{github.uri}/api/v3/repos/example/agent/issues/5/comments"
    )
    with pytest.raises(GitHubError):
        publish(strange, "x", sleep=lambda _: None)
