"""A sentence and a trained model go in, the best clips come out."""
