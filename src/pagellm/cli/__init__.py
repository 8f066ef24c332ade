"""Floor 8: one module a command group; each imports its stage inside the command, so that help stays fast."""
