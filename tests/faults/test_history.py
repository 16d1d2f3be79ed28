"""The checker finds each kind of broken history, and nothing in a good one."""

from dataclasses import replace

import numpy as np
from history import Entry, digest, links, violations
from ledger import entered

LANES = 3


def good(session="s" * 32, steps=6, owner=100, tenant=""):
    """A session's history as it should be: a reset, steps, and an episode that ends after the third step."""
    after = np.arange(LANES) + owner
    entries = [
        Entry(
            session=session, tenant=tenant, call="reset", sequence=1, asked=b"r", answered=digest(after), ended_s=1.0,
            before=after, after=after, fresh=np.ones(LANES, bool), owners=frozenset(after.tolist()),
        )
    ]  # fmt: skip
    for sequence in range(2, steps + 2):
        fresh = np.full(LANES, sequence == 5)
        before = after + 50 if sequence == 5 else after
        promised = entered(before, sequence % 5, sequence)
        after = before if sequence == 5 else promised
        entries.append(
            Entry(
                session=session, tenant=tenant, call="step", sequence=sequence, asked=bytes([sequence]),
                answered=digest(after), began_s=sequence - 0.5, ended_s=float(sequence), before=before, after=after,
                promised=promised, fresh=fresh, over=np.full(LANES, sequence == 4),
            )
        )  # fmt: skip
    return entries


def changed(entries, place, **fields):
    return [replace(entry, **fields) if number == place else entry for number, entry in enumerate(entries)]


def only(found, sentence):
    return len(found) >= 1 and all(sentence in problem for problem in found)


def test_a_good_history_breaks_no_rule():
    assert violations(good() + good("t" * 32, owner=900, tenant="other")) == []


def test_refusals_and_faithful_repeats_break_no_rule():
    entries = good()
    refused = Entry(session="s" * 32, call="step", sequence=9, asked=b"x", ended_s=9.0)
    assert violations([*entries, replace(entries[3], ended_s=20.0), refused]) == []


def test_a_lost_step_is_found():
    entries = good()
    del entries[3]
    assert any("answered where 4 was next" in problem for problem in violations(entries))
    lost = changed(good(), 3, before=good()[1].after)
    assert only(violations(lost), "did not start where the request before had left them")


def test_reordered_steps_are_found():
    entries = changed(changed(good(), 2, ended_s=4.0), 3, ended_s=3.0)
    assert any("answered where" in problem for problem in violations(entries))


def test_a_repeat_with_another_answer_is_found():
    entries = [*good(), replace(good()[2], answered=b"another", ended_s=20.0)]
    assert only(violations(entries), "another answer than the first time")


def test_a_step_done_twice_is_found():
    entry = good()[2]
    twice = changed(good(), 2, after=entered(entry.after, 3, 3))
    found = violations(twice)
    assert any("not that of its actions, done once" in problem for problem in found)
    assert any("did not start where" in problem for problem in found)


def test_lanes_that_begin_anew_unasked_are_found():
    assert only(violations(changed(good(), 6, fresh=np.ones(LANES, bool))), "began anew that had not ended")
    assert any(
        "ended ones went on" in problem for problem in violations(changed(good(), 4, fresh=np.zeros(LANES, bool)))
    )


def test_a_step_after_the_close_is_found():
    close = Entry(session="s" * 32, call="close", answered=b"", ended_s=3.2)
    late = violations([*good(), close])
    assert len(late) == 4 and only(late, "after the session was closed")


def test_a_foreign_read_is_found():
    entries = [
        *good(tenant="ours"),
        Entry(session="s" * 32, call="render", tenant="theirs", answered=b"", ended_s=50.0),
    ]
    assert only(violations(entries), "'theirs' was answered about a session of 'ours'")
    swapped = [*good(), *changed(good("t" * 32, owner=900), 2, owners=frozenset({101}))]
    assert only(violations(swapped), "shows a lane of session ssssssss")


def test_chains_are_the_same_up_to_the_first_difference():
    one, other = links(good())["s" * 32], links(changed(good(), 3, answered=b"other"))["s" * 32]
    assert [mine == yours for mine, yours in zip(one, other, strict=True)] == [True] * 3 + [False] * 4


def test_a_digest_tells_types_and_shapes_apart():
    ones = np.ones(4)
    assert len({digest(ones), digest(ones.reshape(2, 2)), digest(ones.astype(np.float32)), digest("1"), digest(1)}) == 5
