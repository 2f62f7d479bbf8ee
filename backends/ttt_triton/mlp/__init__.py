"""TTT-MLP with four hidden columns a column: a program for each head of a sequence holds both maps, and goes from mini-batch to mini-batch."""

from .op import mlp as mlp
