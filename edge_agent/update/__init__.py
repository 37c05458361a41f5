"""Moving from one release to another without ever serving half of one."""
