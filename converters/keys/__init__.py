"""Private keys of the release team: in encrypted files, or on a PKCS#11 token."""
