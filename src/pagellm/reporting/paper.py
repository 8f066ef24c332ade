"""What the paper states of itself, beside which ours may be set, and where ours departs from it. Facts, no code."""

from __future__ import annotations

PAPER = (
    "The abstract of PageLLM (arXiv 2506.09084) states figures of an online test alone: +0.44 % GMV and +0.14 % CTR with ten "
    "million users. No offline figure of it can be set beside ours; what stands here compares methods with each other."
)

STATED = (("GMV, online test with ten million users", "+0.44 %"), ("CTR, the same test", "+0.14 %"))
"""Figures of the abstract."""

DEVIATIONS = (
    "The data are cut by time where the protocol says so; the lineage of generative recommenders splits users or leaves the last item out.",
    "Amazon sets of the lineage are 5-core over their whole time span, which lets the future choose who is in them.",
    "The policy is a small decoder trained here, or any causal LM that is named; the paper fine-tunes a pre-trained one.",
    "Every baseline is tuned by a search on validation data; the search and its trials are written down.",
)
