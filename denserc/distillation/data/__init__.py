"""Images, regions, crops and views of the distillation, and their batches."""
