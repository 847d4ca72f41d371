"""The other end of `processes.fresh`: calls one function and writes down what it returns.

python -m benchmarks.child MODULE:FUNCTION RESULT ARGUMENTS
"""

import importlib
import json
import sys


def main() -> None:
    where, result, arguments = sys.argv[1:]
    module, _, function = where.partition(":")
    value = getattr(importlib.import_module(module), function)(*json.loads(arguments))
    with open(result, "w") as file:  # noqa: PTH123  pathlib is not to be paid for here
        json.dump(value, file)


if __name__ == "__main__":
    main()
