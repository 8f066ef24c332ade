"""Floor 7: everything that is known of a run offline, gathered, gated and told in one report."""
