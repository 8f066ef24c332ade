"""Preference pairs from implicit feedback: two pages for one context, of which the feedback says that the first is better."""
