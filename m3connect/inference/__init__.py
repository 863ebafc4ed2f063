"""Encoding: text in, dense, sparse and multi-vector representations out."""

from m3connect.inference.encoder import M3Encoder

__all__ = ["M3Encoder"]
