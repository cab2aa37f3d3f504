"""The three losses: contrast (vtc), matching (vtm), masked words (mlm). One loss a file, pure functions, float32."""
