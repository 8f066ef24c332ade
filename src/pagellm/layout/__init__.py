"""Floor 3: rows, slots and rules; one compiler from rules to masks, and a validator that shares no code with it."""
