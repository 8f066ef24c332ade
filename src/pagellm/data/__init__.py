"""Floor 4: from files to checked records, splits, content vectors, candidates and their evidence. No torch."""
