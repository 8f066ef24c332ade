"""The generator against published numbers and against the distributions it promises."""

from __future__ import annotations

import numpy as np
from scipy import stats

from pagellm.simulation.counters import Purpose, draw, normals, stream, uniforms


def test_draws_are_the_published_splitmix64_sequence():
    drawn = [int(draw(np.uint64(1234567), i)) for i in range(5)]
    assert drawn == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_uniforms_are_uniform_and_streams_differ():
    first, second = uniforms(1, Purpose.SHOP, 0, 50_000), uniforms(1, Purpose.SHOP, 1, 50_000)
    assert stats.kstest(first, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02
    assert not np.array_equal(first, uniforms(2, Purpose.SHOP, 0, 50_000))
    assert not np.array_equal(first, uniforms(1, Purpose.VISIT, 0, 50_000))


def test_normals_have_unit_variance():
    values = normals(5, Purpose.SHOP, 0, 200_000)
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1.0) < 0.01
    assert abs(stats.skew(values)) < 0.02


def test_neighboring_counters_share_no_stream():
    keys = {int(stream(7, 1, user, visit)) for user in range(100) for visit in range(100)}
    assert len(keys) == 10_000
