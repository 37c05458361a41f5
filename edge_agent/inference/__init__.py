"""Model runtimes behind one port."""
