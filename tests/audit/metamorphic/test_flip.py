"""A rewrite that turns a legal order into an illegal one turns the verdict, and back."""

import pytest

from audit.rewrite import random_rewrite
from tests.audit.fixture_cases import audited
from tests.audit.metamorphic.common import rewritten, rules_that_count, script

#: legal fixture -> the rule that its flip must break
TURNED = {
    "nano/plain": "F2",
    "nano/one_pass_in_a_loop": "F2",
    "nano/adapt_on_train_slice": "F2",
    "nano/dequantised_into_the_old_object": "F2",
    "dense/delta_from_context_rows": "F5",
    "ngram/plain": "F7",
    "ngram/hint_by_mixture": "F7",
}
#: illegal fixture -> nothing but what the flip mends was wrong with it
MENDED = ["nano/update_above_score", "dense/slot", "dense/slot_packed"]


@pytest.mark.parametrize(("case", "rule"), TURNED.items())
@pytest.mark.parametrize("seed", [0, 1])
def test_a_legal_submission_becomes_illegal(case: str, rule: str, seed: int) -> None:
    assert audited(case).verdict == "clean"
    text, said = random_rewrite(script(case), seed, "flip")
    after = rewritten(case, text)
    assert after.verdict == "violation", f"{said}: {after.reason}"
    related = {"F2": {"F1", "F2", "F3"}, "F5": {"F5"}, "F7": {"F7", "F8"}}[rule]
    assert rules_that_count(after) & related, f"{said}: {after.reason}"


@pytest.mark.parametrize("case", MENDED)
def test_an_illegal_submission_becomes_legal(case: str) -> None:
    assert audited(case).verdict == "violation"
    text, said = random_rewrite(script(case), 0, "flip")
    after = rewritten(case, text)
    assert after.verdict == "clean", f"{said}: {after.reason}"
