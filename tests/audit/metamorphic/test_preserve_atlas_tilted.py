"""A rewrite that changes no behaviour changes no verdict."""

import pytest

from audit.rewrite import NothingToRewrite, random_rewrite
from tests.audit.fixture_cases import audited, cases, expected
from tests.audit.metamorphic.common import rewritten, rules_that_count, script

CASES = [
    c for base in ["atlas", "tilted"] for c in cases(base) if expected(c)["verdict"] != "undetermined"
]


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_survives_other_words_and_another_form(case: str) -> None:
    try:
        text, said = random_rewrite(script(case), f"{case} 1")
    except NothingToRewrite as none:
        pytest.skip(str(none))
    before, after = audited(case), rewritten(case, text)
    assert after.verdict == before.verdict, f"{said}: {after.reason}"
    assert rules_that_count(after) == rules_that_count(before), said
    assert after.ttt == before.ttt and after.cache == before.cache, said
