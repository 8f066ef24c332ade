"""Supervised controls that see the labels that rewards and pages are learned from: what a reward has to be better than.

start      the run's own policy, which stops where the rewards begin: what arms learn from
head       the same, its evidence head fitted on to the rewards' window
refreshed  the language model fitted again up to the end of that window, the start's head
both       the language model fitted again, the head fitted on: all that supervised learning makes of the same labels
"""

from __future__ import annotations

import copy

from pagellm.data.contexts import contexts_between
from pagellm.models.codec import reading_spans
from pagellm.models.policy import PolicyNet
from pagellm.models.run import Run
from pagellm.training.run_ppo import windows
from pagellm.training.run_sft import fit_evidence_head
from pagellm.training.sft import fit_language_model, language_model_state

START, HEAD, REFRESHED, BOTH = CONTROLS = ("start", "head", "refreshed", "both")


def with_later_head(run: Run) -> PolicyNet:
    """The run's policy with its head fitted on, on every warm context of the rewards' window, held-out users too."""
    net, log = copy.deepcopy(run.net), run.split.log
    contexts = contexts_between(log, *windows(run)[0])
    for _ in fit_evidence_head(net, run.config, contexts.take(contexts.warm), run.evidence):
        pass
    return net.eval()


def with_later_language_model(run: Run) -> PolicyNet:
    """The run's policy with its language model fitted again on all that precedes the end of the rewards' window."""
    net, config, log = copy.deepcopy(run.net), run.config, run.split.log
    net.reset(config.seed)
    spans = reading_spans(log, log.time < windows(run)[0][1], config.model.max_history)
    state = language_model_state(net, config.sft)
    for _ in fit_language_model(net, spans, config.sft, config.model.max_history, config.seed, state):
        pass
    return net.eval()


def with_head_of(net: PolicyNet, other: PolicyNet) -> PolicyNet:
    """A copy with the evidence head of another policy."""
    out = copy.deepcopy(net)
    out.evidence.load_state_dict(other.evidence.state_dict())
    return out.eval()


def with_page_evidence(net: PolicyNet, learned: PolicyNet) -> PolicyNet:
    """A copy with the page evidence of another policy, and with what that compares items by."""
    out = copy.deepcopy(net)
    out.page_evidence = copy.deepcopy(learned.page_evidence)
    return out.eval()
