"""Nothing is shared implicitly: fakes and fixtures of tests/support are imported by name."""
