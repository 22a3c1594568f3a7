"""What an evaluation is predicted to take."""

from pipeline.autograd.cost import Cost


def test_a_batch_that_is_not_full_takes_the_time_of_a_batch():
    cost = Cost(1, 8, 0, 10, setup_seconds=100.0, batch_seconds=10.0, point_seconds=1.0)
    assert cost.seconds(4, 4) == 100 + 10 + 4
    assert cost.seconds(5, 4) == 100 + 2 * 10 + 5
