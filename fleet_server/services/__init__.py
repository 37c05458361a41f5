"""Use cases, one transaction each; they know neither HTTP nor MQTT."""
