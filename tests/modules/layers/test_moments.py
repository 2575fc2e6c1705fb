"""Running moments against numpy's of everything seen, and what inputs are normalised to."""

import numpy as np
import pytest
import torch

from shoal.modules.layers.moments import LARGEST, Normaliser, RunningMoments

ROWS = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1.0, 1e4]) + 1000


@pytest.mark.parametrize("size", [1, 7, 400, 1000])
def test_moments_are_those_of_all_rows_however_they_come(size: int) -> None:
    moments = RunningMoments(3)
    for rows in ROWS.split(size):
        moments.update(rows)
        moments.update(rows[:0])
    expected = ROWS.double().numpy()
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, expected.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.std**2 - 1e-8, expected.var(0), rtol=1e-9)
    standardised = moments.standardise(ROWS.double())
    np.testing.assert_allclose(standardised, (expected - expected.mean(0)) / moments.std.numpy(), rtol=0, atol=1e-8)
    torch.testing.assert_close(moments.restore(standardised), ROWS.double())


def test_moments_of_nothing_change_nothing() -> None:
    moments = RunningMoments(3)
    torch.testing.assert_close(moments.standardise(ROWS), ROWS, rtol=0, atol=0)
    torch.testing.assert_close(moments.restore(ROWS), ROWS, rtol=0, atol=0)


def test_inputs_are_normalised_and_cut() -> None:
    moments, normaliser = RunningMoments(3), Normaliser(3, of="obs")
    moments.update(ROWS)
    normaliser.follow(moments)
    seen = normaliser(ROWS)
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), rtol=0, atol=1e-2)  # inputs are in single precision
    torch.testing.assert_close(seen.std(0)[1:], torch.ones(2), rtol=0, atol=1e-2)
    assert normaliser(ROWS * 1e9).abs().max() == LARGEST


def test_an_entry_that_never_changes_becomes_zero_and_its_first_change_stays_small() -> None:
    moments, normaliser = RunningMoments(1), Normaliser(1, of="obs")
    moments.update(torch.full((500, 1), 0.7))
    normaliser.follow(moments)
    assert normaliser(torch.tensor([0.7])).abs() < 1e-3
    assert normaliser(torch.tensor([700.0])) == LARGEST
