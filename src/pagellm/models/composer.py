"""The language policy as a `PagePolicy`: from contexts to finished pages under a layout, with exact log-probabilities.

Takes a loaded run and contexts; draws candidates, reads evidence, writes within the masks. Knows no training, no HTTP, no HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pagellm.data.contexts import contexts_of
from pagellm.layout.compiled import CompiledLayout, compile_layout
from pagellm.layout.masks import PageMasks
from pagellm.layout.spec import Layout
from pagellm.models.codec import Prompts, encode
from pagellm.models.decoding import EMPTY, Forced, PageScorer, Writing, Written, write_pages
from pagellm.models.run import Run
from pagellm.types import F32, F64, I32, I64, NO_ITEM, Bool, Context, Contexts, Page
