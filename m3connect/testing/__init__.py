"""What connector authors and applications test with: the conformance suite and fakes."""
