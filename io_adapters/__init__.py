"""The world: bytes in, numpy out, and back. Never torch, never Ray."""
