"""Changing who may do what in the release repository: people, each with an own key, offline."""
