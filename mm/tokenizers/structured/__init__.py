"""Structured things as sentences of 4M's text vocabulary (`mm.tokenizers.wordpiece`), and back, exactly.

det               boxes with labels
human_poses       people: box, body pose, rotation, shape, camera
color_palette     one to seven colours
metadata          21 figures of a picture, in bins
sam_instance      points, and the masks that cover them

Each has `write` (thing -> sentence) and `parse` (sentence -> thing). Numbers come back as the value that their bin stands
for: parse(write(x)) is x on that grid, and write(parse(s)) is s but for orders that are random. A sentence that no
`write` can have made is refused with the number of the token where it goes wrong.
"""
