"""A small trained model on a world of our own: the world, its measures, and the training."""
