"""The page of an evaluation: every protocol that was carried out, encoders and floors side by side."""
