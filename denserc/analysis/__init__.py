"""Research code: analyses of the paper that no model needs to run."""
