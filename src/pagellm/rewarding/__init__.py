"""What `pagellm rewards check` does, without the command line: rewards of a run on users they have not met."""
