import pytest

from latentpress.eval.timing import interleaved, medians, paired_ratio


def test_candidates_take_turns_and_the_first_round_is_not_counted():
    order = []
    seconds = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3)
    assert order == ["a", "b"] * 4
    assert {k: len(v) for k, v in seconds.items()} == {"a": 3, "b": 3} and min(seconds["a"]) >= 0
    order.clear()
    interleaved({"a": lambda: order.append("a")}, repeats=1, warm_up=False)
    assert order == ["a"]
    with pytest.raises(ValueError, match="repeats=0"):
        interleaved({}, repeats=0)


def test_a_round_that_was_slow_for_both_does_not_move_the_ratio():
    ours, theirs = [1.0, 9.0, 1.0, 50.0], [2.0, 18.0, 2.0, 100.0]
    assert paired_ratio(ours, theirs) == 0.5
    assert paired_ratio([1, 1, 7], [2, 2, 2]) == 0.5
    assert medians({"a": [3, 1, 2]}) == {"a": 2}
    with pytest.raises(ValueError):
        paired_ratio([1], [1, 2])
