"""Command-line tools: `python -m denserc.tools.NAME`."""
