"""pagellm: fine-tunes a language model to write whole pages from a shop's own feedback logs."""

from __future__ import annotations

__version__ = "0.1.0"
