"""Settings and suppressions that do not do what was meant are said on standard error, and judge nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.context import Options
from audit.engine import audit_target, audit_text
from audit.program import main
from audit.suppress import mistakes, suppressions
from tests.audit.fixture_cases import SUBMISSIONS

LEAK = SUBMISSIONS / "ngram" / "target_in_the_address"


def said(target: str | Path, capfd: pytest.CaptureFixture[str], **options: object) -> list[str]:
    audit_target(str(target), Options(warn=True, **options))  # type: ignore[arg-type]
    out, err = capfd.readouterr()
    assert out == ""
    return err.splitlines()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"NOSUCHKNOB": "1"}, "NOSUCHKNOB=1 changes nothing: train_gpt.py reads no setting of that name"),
        ({"NGRAM_CASH": "1"}, "did you mean NGRAM_CACHE?"), ({"NGRAM_CACHE": "banana"}, "'banana' is no number"),
        ({"NGRAM_CACHE": "0"}, ""), ({"NGRAM_CACHE": "true"}, ""), ({"NGRAM_CACHE": "1e3"}, ""), ({"DATA_PATH": "elsewhere"}, ""),
        ({"WORLD_SIZE": "8"}, ""),
    ],
)  # fmt: skip
def test_a_setting_that_nothing_reads_or_that_does_not_fit_is_said(env: dict[str, str], words: str, capfd) -> None:
    lines = said(LEAK, capfd, env=env)
    assert len(lines) == bool(words) and words in "".join(lines)


def test_a_setting_that_is_read_in_a_way_of_its_own_is_let_pass(tmp_path: Path, capfd) -> None:
    (tmp_path / "train_gpt.py").write_text("import os\nfor k in ('LR', 'WD'):\n    globals()[k] = os.environ[k]\nloss.backward()\n")
    assert said(tmp_path, capfd, env={"WD": "0.1"}) == []


@pytest.mark.parametrize(
    ("inside", "rules", "unknown"),
    [
        ("F8", {"F8"}, ()), ("F8, F9", {"F8", "F9"}, ()), ("F8 F9", {"F8", "F9"}, ()), ("f8,target-in-key", {"F8"}, ()),
        ("target-in-key score-first", {"F8", "F2"}, ()), ("F99", {"F99"}, ("F99",)), ("F8 F99", {"F8", "F99"}, ("F99",)),
        ("", set(), ()), ("scorefirst", set(), ("scorefirst",)),
    ],
)  # fmt: skip
def test_ids_and_names_are_understood_and_others_are_named(inside: str, rules: set[str], unknown: tuple[str, ...]) -> None:
    text = f"x = 1\n# referee: ignore[{inside}] agreed in #1\ny = 2\n"
    (found,) = suppressions(text)
    assert (found.at, found.line, found.rules, found.unknown, found.reason) == (2, 3, rules, unknown, "agreed in #1")
    told = list(mistakes(text))
    assert len(told) == (len(unknown) or not rules) and all(line == 2 for line, _ in told)


@pytest.mark.parametrize("comment", ["# referee: ignore F8", "# referee: ignore", "# referee: ignore[]"])
def test_a_suppression_without_a_rule_is_told_how_to_write_one(comment: str) -> None:
    ((line, words),) = mistakes(f"x = 1  {comment}\n")
    assert line == 1 and "ignore[F8] reason" in words


def test_other_comments_are_no_suppressions() -> None:
    assert not suppressions("# the referee: ignored by all\n# referee: see docs\nx = 'referee: ignore'\n# ignore[F8]\n")


def test_a_near_name_is_offered() -> None:
    ((_, words),) = mistakes("# referee: ignore[score-frist]\n")
    assert "did you mean score-first?" in words


def test_mistakes_are_said_with_their_place_and_change_no_verdict(tmp_path: Path, capfd) -> None:
    text = (LEAK / "train_gpt.py").read_text()
    line = next(n for n, t in enumerate(text.splitlines(), 1) if "numpy.minimum(self.pairs[full]" in t)
    lines = text.splitlines()
    lines.insert(line - 1, "# referee: ignore[F99]")
    (tmp_path / "train_gpt.py").write_text("\n".join(lines) + "\n")
    (told,) = said(tmp_path, capfd, env={"NGRAM_CACHE": "1"})
    assert f"train_gpt.py:{line}: " in told and "'F99'" in told
    assert said(tmp_path, capfd, env={"NGRAM_CACHE": "1"}, ignore_suppressions=True) == []
    assert audit_text("\n".join(lines) + "\n").verdict == "violation"


def test_names_and_spaces_suppress_as_ids_and_commas_do(tmp_path: Path) -> None:
    text = (LEAK / "train_gpt.py").read_text()
    for inside in ("F8, F9", "F8 F9", "target-in-key not-a-distribution"):
        marked = text.replace("        return numpy.minimum(self.pairs[full]", f"        # referee: ignore[{inside}] known\n        return numpy.minimum(self.pairs[full]")
        assert marked != text
        found = [f for f in audit_text(marked).findings if f.severity == "violation"]
        assert found and all(f.suppressed == "in the source: known" for f in found)


def test_a_cache_in_a_folder_that_is_not_there_is_a_mistake_and_makes_none(tmp_path: Path, capsys) -> None:
    assert main(["sweep", str(tmp_path), "--cache", str(tmp_path / "nope" / "x.sqlite")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not (tmp_path / "nope").exists()
