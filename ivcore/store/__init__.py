"""The workspace on disk: steps go in as recipes and files, finished artifacts, tables and the catalog come out."""
