"""Tables and Core queries; no rules."""
