"""From data to verdicts: the chain behind a bundle, link by link."""
