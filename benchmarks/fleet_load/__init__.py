"""What the fleet benchmark sends with: publishers in processes of their own, bare connections."""
