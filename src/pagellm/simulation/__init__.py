"""Floor 5: a shop with known truth. Its formulas are imported by no model, training or evaluation code."""
