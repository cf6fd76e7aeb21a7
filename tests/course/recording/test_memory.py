"""From offsets to indices, for any view."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course.recording.memory import Memory


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_indices_of_every_offset_of_the_storage(data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    whole = torch.arange(math.prod(shape)).reshape(shape)
    order = data.draw(st.permutations(range(len(shape))))
    parts = tuple(
        slice(data.draw(st.integers(0, size - 1)), None, data.draw(st.integers(1, 2))) for size in shape
    )
    view = whole[parts].permute(order)
    known = Memory({"view": view}).tensors[0]
    offsets = np.arange(known.first_byte // 8, known.end_byte // 8)
    indices, inside = known.indices(offsets)
    where = {int(view[index]): index for index in np.ndindex(*view.shape)}
    for offset, index, found in zip(offsets, indices.tolist(), inside.tolist(), strict=True):
        number = offset - known.first_byte // 8  # the storage holds 0, 1, 2, ...
        assert found == (number in where)
        if found:
            assert tuple(index) == where[number]


def test_a_dimension_that_was_expanded_has_index_0():
    known = Memory({"x": torch.zeros(3, 1).expand(3, 5)}).tensors[0]
    indices, inside = known.indices(np.array([0, 2, 3]))
    assert indices[:2].tolist() == [[0, 0], [2, 0]]
    assert inside.tolist() == [True, True, False]


def test_elements_that_overlap_have_no_index():
    known = Memory({"x": torch.zeros(10).as_strided((3, 3), (2, 1))}).tensors[0]
    with pytest.raises(ValueError, match="^x: elements overlap"):
        known.indices(np.array([0]))
