"""A folder or a published annotation goes in, a manifest of clips with captions comes out."""
