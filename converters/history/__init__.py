"""Long runs over a log in parts that survive a kill: features anew, and scores."""
