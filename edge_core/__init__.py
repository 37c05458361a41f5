"""What training, devices and the fleet server share: bundles, features, statistics, messages."""
