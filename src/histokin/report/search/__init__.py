"""The page of a search: what was asked, what was searched, the answers with their evidence, and what it cannot say."""
