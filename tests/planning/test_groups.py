"""Every notation for the groups of a collective, and the mesh axes they lie along."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from s1_jax.planning.groups import mesh_axes, parse_groups

COLUMNS = ((0, 2), (1, 3))


@pytest.mark.parametrize(
    "text,groups",
    [
        ("{{0,2},{1,3}}", COLUMNS),
        ("[2,2]<=[2,2]T(1,0)", COLUMNS),
        ("mesh['a'=2,'b'=2] {'a'}", COLUMNS),
        ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", COLUMNS),
        ("mesh['a'=4] {'a':(1)2}", COLUMNS),
        ("mesh['a'=4] {'a':(2)2}", ((0, 1), (2, 3))),
        ("[2,2]<=[4]", ((0, 1), (2, 3))),
        ("[1,4]<=[4]", ((0, 1, 2, 3),)),
        ("mesh['a'=2,'b'=1,'c'=2] {'a','c'}", ((0, 1, 2, 3),)),
        ("{}", ((0, 1, 2, 3),)),
        (None, ((0, 1, 2, 3),)),
        ("{{0,1},{1,0}}", ((0, 1), (1, 0))),
    ],
)
def test_notations(text, groups):
    assert parse_groups(text, 4) == groups


def test_the_axes_of_groups_are_those_their_members_differ_in():
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("fsdp", "context", "tensor"))
    assert mesh_axes(((0, 4), (1, 5), (2, 6), (3, 7)), mesh) == ("fsdp",)
    assert mesh_axes(((0, 1), (1, 0), (2, 3), (3, 2)), mesh) == ("tensor",)
    assert mesh_axes(((0, 2, 4, 6), (1, 3, 5, 7)), mesh) == ("fsdp", "context")
