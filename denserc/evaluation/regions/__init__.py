"""Region classification: inputs, pooling, accuracies and their report."""
