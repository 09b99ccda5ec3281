"""The command line of the benchmark: how fast the live system is here.

python -m helpers.benchmark [--source FILE] [--soak-minutes M] [--json OUT.json]
"""

import sys

from helpers.live.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
