"""Randomness that is addressed, not consumed: a draw depends on its address alone."""

import hashlib
import json

import torch


def address(seed: int, purpose: str, name: str = "", draw: int = 0) -> int:
    """The 63-bit seed of an address: a hash of study seed, purpose, tensor name and draw index."""
    text = json.dumps([seed, purpose, name, draw]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, name: str = "", draw: int = 0) -> torch.Generator:
    """A CPU generator for one address. The order of calls, batch size, workers or a resume never change what it gives."""
    return torch.Generator().manual_seed(address(seed, purpose, name, draw))
