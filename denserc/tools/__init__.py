"""What the commands of `denserc` do, as functions. `denserc.commands` has their options."""
