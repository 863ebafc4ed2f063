"""m3connect inside other libraries: thin, each file behind an extra of its own."""
