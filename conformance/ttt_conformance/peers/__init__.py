"""Peers: other people's TTT layers as backends, called by their own public functions, and why their answers differ (docs/peers.md).

An adapter translates layouts and conventions and nothing else. What remains is what a peer computes; the laws judge it as they judge any
backend, ``DIFFERENCES`` says why it differs, and ``python -m ttt_conformance.peers`` shows that this explains all of it.
"""

from .difference import Difference as Difference
