"""Floor 6: loops that fit models to records; each yields its statistics and leaves saving to the caller."""
