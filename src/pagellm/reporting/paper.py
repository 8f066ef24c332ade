"""What the paper states of itself, beside which ours may be set, and where ours departs from it. Facts, no code."""

from __future__ import annotations

VERSION = "arXiv 2506.09084, abstract of version 2"

PAPER = (
    f"Of PageLLM we know what its abstract states ({VERSION}): without the page reward NDCG@100 falls by 17.8 %, without the item "
    "reward by 15.2 %, both together raise it by up to 46.8 %; in an online test with ten million users GMV rose by 0.44 % and CTR "
    "by 0.14 %. Backbone, split, categories and what the 46.8 % are measured against are not stated, so they are a shape to look "
    "for and no target."
)

STATED = (
    ("without the page reward", "NDCG@100 without the page reward, beside both", "-17.8 %"),
    ("without the item reward", "NDCG@100 without the item reward, beside both", "-15.2 %"),
    ("both rewards", "NDCG@100 with both rewards, beside none", "up to +46.8 %"),
    ("gmv", "GMV, online", "+0.44 %"),
    ("ctr", "CTR, online", "+0.14 %"),
)
"""(what an ablation calls it, words, figure) of the abstract."""

ONLINE = ("gmv", "ctr")
"""Of these, what takes an experiment with customers."""

DEVIATIONS = (
    "The data are cut by time where the protocol says so; the lineage of generative recommenders splits users or leaves the last item out.",
    "Amazon sets of the lineage are 5-core over their whole time span, which lets the future choose who is in them.",
    "The policy is a small decoder trained here, or any causal LM that is named; the paper fine-tunes a pre-trained one.",
    "Every baseline is tuned by a search on validation data; the search and its trials are written down.",
)
