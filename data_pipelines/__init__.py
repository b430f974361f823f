"""Data sets, one file each: how it is built, which splits it has, which rows make an example."""
