"""The parts of CAT-Seg, one role per file."""
