"""What follows what. Nothing is imported here, so that `iv --help` stays quick."""
