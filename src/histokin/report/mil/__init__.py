"""The page of slide classifiers: how good they are, what they said of each slide, and what they looked at."""
