"""Backends that are the reference with something done to its answers."""

import dataclasses

from tttcore import Supports, get_backend

NUMPY = get_backend("numpy")
NARROW = Supports(forms=("dual",), inner=("linear",), dtypes=("float32", "float64"), mask=False, cu_seqlens=False)
"""Claims that leave few cells."""


def changed(change, name="wrong", supports=NARROW, **fields):
    """The reference, whose inner loop returns what ``change`` makes of its y and state."""

    def inner(*given, **options):
        return change(*NUMPY.inner_function(*given, **options))

    return dataclasses.replace(NUMPY, name=name, inner_function=inner, supports=supports, **fields)


def crashing(error, name="wrong", supports=NARROW):
    """The reference, whose inner loop raises."""

    def crash(y, state):
        raise error

    return changed(crash, name, supports)
