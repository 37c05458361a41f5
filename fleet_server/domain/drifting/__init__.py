"""Has the world changed? Pure: counts of a period in, what drifts out.

``measures`` puts counts into figures, ``season`` says what to expect of them, ``betting`` how much
a departure proves, ``detector`` when that is enough, ``finding`` what it is and what to do.
"""
