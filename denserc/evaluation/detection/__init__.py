"""Detection: evaluators, protocols, predictions on disk, recall of proposals."""
