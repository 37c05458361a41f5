"""Who the device is: its key, its certificate, and how both are renewed."""
