"""Made-up videos of coloured shapes that move: the scenes, their drawing and the words for them."""
