"""Model folders: published weights in and out, strictly; load and save."""
