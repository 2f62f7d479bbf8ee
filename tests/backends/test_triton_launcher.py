"""Launches that remember what was compiled, with a kernel that only keeps account: nothing here imports Triton."""

import pytest
import torch

from ttt_triton.launcher import Launcher

ALIGNED = torch.zeros(64)
OFF = ALIGNED[1:]


class Kernel:
    """Counts how often Triton would look at arguments, and hands out what takes them as they are."""

    arg_names = ("x_ptr", "n", "eps", "SIZE", "WIDTH")

    def __init__(self):
        self.looked, self.launched = [], []

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            self.looked.append((grid, arguments, options))
            return Compiled(self)

        return launch


class Compiled:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda *arguments: self.kernel.launched.append((grid, arguments))


@pytest.fixture
def kernel():
    return Kernel()


def launcher(kernel):
    return Launcher(kernel, {"num_warps": 4, "WIDTH": 64, "SIZE": 16})


def test_the_second_of_a_kind_goes_to_what_was_compiled(kernel):
    launch = launcher(kernel)
    launch[3, 5](ALIGNED, 7, 1e-6)
    launch[2, 1](ALIGNED, 9, 1e-5)
    assert kernel.looked == [((3, 5), (ALIGNED, 7, 1e-6), {"num_warps": 4, "WIDTH": 64, "SIZE": 16})]
    assert kernel.launched == [((2, 1, 1), (ALIGNED, 9, 1e-5, 16, 64))]


@pytest.mark.parametrize(
    "other",
    [(OFF, 7, 1e-6), (ALIGNED.double(), 7, 1e-6), (ALIGNED, 1, 1e-6), (ALIGNED, 32, 1e-6), (ALIGNED, 2**31, 1e-6), (ALIGNED, 7, None)],
    ids=["alignment", "dtype", "one", "sixteens", "long", "none"],
)
def test_what_triton_compiles_for_is_a_kind_of_its_own(kernel, other):
    launch = launcher(kernel)
    launch[1, 1](ALIGNED, 7, 1e-6)
    launch[1, 1](*other)
    assert len(kernel.looked) == 2
    assert not kernel.launched
