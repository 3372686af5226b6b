"""`python -m electra_serve`: the same as `electra-serve`."""

import sys

from electra_serve.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
