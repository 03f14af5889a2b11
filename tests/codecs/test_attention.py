"""Blocks of attention in windows: cutting, masks, rings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentpress.codecs.attention import Attention, Block, BlockConfig, Window, bordered, cut, joined, offsets, window_mask

CONFIG = BlockConfig(width=8, heads=2, widening=2, relative=True, local=True)


def lively(window: Window, config: BlockConfig = CONFIG) -> Block:
    """A block none of whose parts is quiet."""
    torch.manual_seed(3)
    block = Block(config, window)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return block.eval().requires_grad_(False)


@given(
    st.integers(1, 9), st.integers(1, 9), st.builds(Window, height=st.integers(1, 5), width=st.integers(1, 5), shift=st.integers(0, 1))
)  # fmt: skip
@settings(deadline=None)
def test_windows_joined_again_give_the_map(h: int, w: int, window: Window) -> None:
    x = torch.arange(2 * h * w * 3).view(2, h, w, 3).float()
    assert torch.equal(joined(cut(x, window), window, h, w), x)


def test_a_token_sees_its_window_and_nothing_else() -> None:
    block = lively(Window(height=4, width=4, shift=2), BlockConfig(width=8, heads=2, relative=True))
    x = torch.randn(1, 8, 8, 8)
    moved = x.clone()
    moved[0, 3, 3] += torch.randn(8)
    seen = (block(x) - block(moved)).abs().amax(-1)[0] > 0
    assert seen[2:6, 2:6].all() and seen.sum() == 16


def test_what_a_shift_brings_together_from_two_edges_stays_apart() -> None:
    block = lively(Window(height=4, width=4, shift=2), BlockConfig(width=8, heads=2))
    x = torch.randn(1, 8, 8, 8)
    moved = x.clone()
    moved[0, 4, 0] += torch.randn(8)
    seen = (block(x) - block(moved)).abs().amax(-1)[0] > 0
    assert seen[2:6, :2].all() and not seen[:, 2:].any()


def test_on_a_ring_rolling_the_map_rolls_the_result() -> None:
    """By whole windows; without the ring the edges show."""
    blocks = [lively(Window(height=4, width=4)), lively(Window(height=4, width=4, shift=2))]

    def through(x: torch.Tensor, wrap: bool) -> torch.Tensor:
        for block in blocks:
            x = block(x, wrap=wrap)
        return x

    x = torch.randn(1, 8, 16, 8)
    for wrap in (True, False):
        same = torch.allclose(through(torch.roll(x, 4, 2), wrap), torch.roll(through(x, wrap), 4, 2), atol=1e-5)
        assert same == wrap


def test_filling_up_to_whole_windows_changes_nothing() -> None:
    """A map of one window and a half is as one whose rest nobody can see."""
    block = lively(Window(height=4, width=6), BlockConfig(width=8, heads=2))
    x = torch.randn(1, 4, 9, 8)
    assert torch.allclose(block(x)[:, :, :6], block(x[:, :, :6]), atol=1e-6)
    assert torch.allclose(block(x)[:, :, 6:], lively(Window(height=4, width=3), BlockConfig(width=8, heads=2))(x[:, :, 6:]), atol=1e-6)
    assert window_mask(4, 12, Window(height=4, width=6), False) is None


def test_without_a_window_every_token_sees_every_token() -> None:
    block = lively(Window(), BlockConfig(width=8, heads=2))
    x = torch.randn(1, 3, 5, 8)
    moved = x.clone()
    moved[0, 0, 0] += torch.randn(8)
    assert ((block(x) - block(moved)).abs().amax(-1) > 0).all()


def test_offsets_tell_apart_every_step_and_nothing_more() -> None:
    found = offsets(3, 4)
    assert found.shape == (12, 12) and found.unique().numel() == 5 * 7
    assert found[0, 1] == found[5, 6] != found[1, 0]


def test_borders_repeat_or_come_from_the_other_side() -> None:
    x = torch.arange(6.0).view(1, 2, 3, 1)
    assert bordered(x, True)[0, 0, :, 0].tolist() == [2, 0, 1, 2, 0]
    assert bordered(x, False)[0, 3, :, 0].tolist() == [3, 3, 4, 5, 5]


def test_impossible_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="divide"):
        BlockConfig(width=10, heads=4)
    with pytest.raises(ValueError, match="window"):
        Attention(CONFIG, Window())
