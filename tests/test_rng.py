"""Randomness is addressed: a draw depends on its address alone."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from layerscope import rng

addresses = st.tuples(st.integers(0, 2**31), st.text(), st.text(), st.integers(0, 1000))


def test_a_known_address_never_changes():
    assert rng.address(0, "initialise", "layer1.weight") == 2279577301370150230  # printf ... | b2sum -l 64, halved


@given(st.lists(addresses, min_size=2, max_size=5, unique=True))
def test_different_addresses_differ(chosen):
    assert len({rng.address(*a) for a in chosen}) == len(chosen)


@given(st.permutations(range(4)))
def test_draws_do_not_depend_on_order(order):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    drawn = {k: torch.randn(3, generator=rng.generator(7, "noise", "w", k)) for k in order}
    expected = [torch.randn(3, generator=rng.generator(7, "noise", "w", k)) for k in range(4)]
    assert all(torch.equal(drawn[k], expected[k]) for k in range(4))
    assert torch.equal(torch.get_rng_state(), before)
