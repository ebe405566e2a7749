"""The page and the text of a comparison: what they say (`document`), and how it is worded, drawn and laid out."""
