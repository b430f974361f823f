"""Commands of the scenes: a picture of them, the table of what determines what, and how quickly they are made."""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from data_pipelines.scenes import determined, record
from data_pipelines.scenes.sheet import draw_sheet
from mm.errors import Parser, exit_code


def _made(numbers: range) -> float:
    """Processor seconds of these records, all modalities."""
    began = time.process_time()
    for i in numbers:
        record(0, i).values()
    return time.process_time() - began


def _speed(count: int, processes: int) -> None:
    _made(range(2**30, 2**30 + 20))  # NumPy's own start; none that is measured
    began = time.perf_counter()
    parts = [range(k * count, (k + 1) * count) for k in range(processes)]
    with ProcessPoolExecutor(processes) as pool:
        spent = sum(pool.map(_made, parts))
    wall = time.perf_counter() - began
    total = count * processes
    print(
        f"{total} records of 64 x 64, every modality, {processes} processes, load {os.getloadavg()[0]:.1f}:"
    )
    print(f"{total / wall:.0f} records/s ({1000 * spent / total:.1f} ms of processor time each)")


def main() -> int:
    """Runs one of the commands."""
    parser = Parser(prog="python -m data_pipelines.scenes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    sheet = commands.add_parser("sheet", help="a picture of a dozen records")
    sheet.add_argument("--out", type=Path, required=True, help="PNG to write")
    sheet.add_argument("--seed", type=int, default=0)
    table = commands.add_parser("table", help="what determines what, as Markdown")
    table.add_argument("--records", type=int, default=200)
    speed = commands.add_parser("speed", help="records per second")
    speed.add_argument("--records", type=int, default=400, help="of each process")
    speed.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.command == "sheet":
        draw_sheet(arguments.out, seed=arguments.seed)
    elif arguments.command == "table":
        cells = determined.table(arguments.records)
        print(determined.markdown(cells, determined.guesses()))
    else:
        _speed(arguments.records, arguments.processes)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
