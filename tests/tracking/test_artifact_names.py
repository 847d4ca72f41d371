"""Names of artifacts: each arrives under one of its own, as any store keeps it."""

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow import MlflowClient

from orbiter_mlflow import names
from orbiter_mlflow.tracking.artifact_names import MAX_PART, MAX_PATH, ArtifactNames, safe_path
from trainers import Tracked, stored, tracked

PIECES = [
    "_",
    "x",
    "3",
    "f",
    "a",
    "?",
    "#",
    "%",
    ":",
    ".",
    " ",
    "/",
    "\x03",
    "é",
    "\udcfe",
    "_x3f_",
]
PATHS = st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join))


def plain(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", ".")) or "artifact"


@given(st.lists(PATHS, min_size=2, max_size=2, unique_by=plain))
@example(["_x3?", "\x03x3?"])
@example(["a_x3f_", "a?"])
@example(["d/" * 1000 + "a", "d/" * 1001 + "a"])
def test_two_paths_never_meet(paths: list[str]) -> None:
    assert len({safe_path(path) for path in paths}) == 2


@given(PATHS)
@example("../../etc/passwd")
@example("CON/nul.txt")
@example("é" * 300 + ".txt")
def test_what_comes_out_says_the_same_to_all(path: str) -> None:
    safe = safe_path(path)
    assert len(safe.encode()) <= MAX_PATH
    assert unquote(safe) == safe  # no server decodes anything
    assert urlsplit(f"http://host/{quote(safe)}").path == f"/{quote(safe)}"
    assert urlsplit(safe).scheme == ""
    for part in safe.split("/"):
        assert 0 < len(part.encode()) <= MAX_PART
        assert part == part.strip()
        assert not part.endswith(".")
        assert not part.startswith("..")
        assert not re.search(r'[<>:"|?*\\%#\x00-\x1f\x7f]', part)
        assert part.split(".")[0].lower() not in {"con", "prn", "aux", "nul", "com1", "lpt1"}


@pytest.mark.parametrize(
    "path",
    ["model.safetensors", "plots/a b.png", "model_x1.bin", ".hidden", "größe.txt", "a+b=c&d"],
)
def test_usual_names_stay(path: str) -> None:
    assert safe_path(path) == path


def test_escapes_and_cuts_can_be_read() -> None:
    assert safe_path("a?b.txt") == "a_x3f_b.txt"
    assert safe_path("/plots//x/./y") == "plots/x/y"
    assert safe_path("../x") == "_x2e__x2e_/x"
    assert safe_path("x2_x2_.png") == "x2_x5f_x2_.png"
    assert re.fullmatch(r"a{234}_[0-9a-f]{16}\.txt", safe_path("a" * 300 + ".txt"))


def test_one_path_has_one_name_for_good_and_ours_are_taken() -> None:
    def redact(text: str) -> str:
        return re.sub(r"hf_\w+", "[redacted]", text)

    claimed = ArtifactNames(redact, ["provenance/requirements.txt"])
    for _ in range(2):
        assert claimed.claim("hf_one") == "[redacted]"
        assert claimed.claim("hf_two") == "[redacted]_2"
        assert claimed.claim("[redacted]_2") == "[redacted]_2_2"
        assert claimed.claim("provenance/requirements.txt") == "provenance/requirements_2.txt"
        assert claimed.claim("plain.txt") == "plain.txt"
    assert claimed.renamed == {
        "[redacted]": "[redacted]",
        "[redacted]_2": "[redacted]",
        "[redacted]_2_2": "[redacted]_2",
        "provenance/requirements_2.txt": "provenance/requirements.txt",
    }


# -- in a store ------------------------------------------------------------------------------------

ODD = [
    *("a b.txt", "a%20b.txt", "a#b.txt", "a?b.txt", "a%2520b.txt", "a", "%41", "A", "?a", "#a"),
    *("a\nb", "a\tb", "a\rb", "ab", "a\x01b", "a%01b", "a\x7fb", "a\x85b", " a", "a ", "a.", "a:"),
    *("C:x", "c:x", "file:x", "http:x", "..a", "...", "a\\b", "NUL.txt", "_x3f_", "é", "a;b=c"),
    *("a\u2028b", "x" * 255, "é" * 127, "\udcfe", "-rf", "~", "~a", "a&b=c", "a+b", 'a"b', "a'b"),
]


def contents(uri: str, trainer: Tracked) -> dict[str, str]:
    """Path -> text of all artifacts, as listed, and as had one by one under the listed path."""
    client, run_id = MlflowClient(uri), stored(uri, trainer).info.run_id
    found: dict[str, str] = {}
    folders = [""]
    while folders:
        for entry in client.list_artifacts(run_id, folders.pop() or None):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                path = Path(client.download_artifacts(run_id, entry.path))
                found[entry.path] = path.read_bytes().decode(errors="surrogateescape")
    return found


@pytest.mark.parametrize("store", ["sqlite", "server"])
def test_odd_names_arrive_apart(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    uri: str = request.getfixturevalue(f"{store}_uri")
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ODD:
        (folder / name).write_text(name, errors="surrogateescape")
    single = tmp_path / "one.txt"
    single.write_text("one")
    trainer = tracked(uri, experiment="names", skip_provenance=["packages"])
    trainer.mark_validated()
    trainer.log_artifact(folder)
    expected = {safe_path(f"odd/{name}"): name for name in ODD}
    for odd in ("a#b", "../up", "/abs", "a%2Fb", "a//b/", "..", "f:x", "x\ny"):
        trainer.log_artifact(single, odd)
        expected[safe_path(f"{odd}/one.txt")] = "one"
    assert contents(uri, trainer) == expected
    tags = stored(uri, trainer).data.tags
    assert '"odd/a_x25_20b.txt": "odd/a%20b.txt"' in tags[names.ARTIFACTS_RENAMED] or (
        '"...": "and ' in tags[names.ARTIFACTS_RENAMED]
    )
    assert names.QUARANTINED not in tags
    assert names.ARTIFACT_PROBLEMS not in tags
