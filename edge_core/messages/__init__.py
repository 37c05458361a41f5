"""What devices and the server say to each other, and how it is packed."""
