"""What `pagellm ope` does, without the command line: a run's policy on logged pages, or one logging policy on another's slots."""
