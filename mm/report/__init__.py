"""The page of a run: one HTML file, without scripts or outside references, from the run's files alone.

    page       what stands on it, and in which order
    files      reads a run's folder      markup   figures, tables, tiles as HTML      style   the sheet
    sheet      any to any                shown    reconstructions, neighbours, the map of embeddings
    tables     every figure              curves   what was logged, as SVG             settings  config, machine
    compare    two runs on one page      reference   a run's curves against kept ones

`python -m mm.report --help` says how it is asked for.
"""

from mm.report.page import write_report as write_report
