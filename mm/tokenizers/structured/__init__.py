"""Structured things as sentences of a text vocabulary, and back, exactly.

Forms with settings of their own (label sets, ranges), for any data: `objects` (Boxes, Instances, Poses) and `records`
(Palette, Metadata, Tree). Those of 4M, as its models write them (`mm.tokenizers.wordpiece`):

det               boxes with labels
human_poses       people: box, body pose, rotation, shape, camera
color_palette     one to seven colours
metadata          21 figures of a picture, in bins
sam_instance      points, and the masks that cover them

Each has `write` (thing -> sentence), `read` or, of 4M's, `parse` (sentence -> thing), and a `grammar`: which token may come
when. Numbers come back as the value that their bin stands for: read(write(x)) is x on that grid, and write(read(s)) is s but
for orders that are random. A sentence that no `write` can have made is refused with the number of the token where it goes
wrong.
"""
