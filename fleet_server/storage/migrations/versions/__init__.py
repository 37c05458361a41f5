"""One module for each revision; none is changed once a server has run it."""
