"""Functions behind the commands of `denserc`. `denserc.commands` has their options."""
