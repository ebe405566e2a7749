"""Archives: what an index is built from, and how it is kept up to date and judged."""
