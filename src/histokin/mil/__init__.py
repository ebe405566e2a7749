"""Slide classification: bags, models, training, prediction. Knows nothing of training encoders."""
