"""Model files: published weights into a model folder, strictly, and back out under upstream's names."""
