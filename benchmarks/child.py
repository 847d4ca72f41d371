"""The child process of `processes.fresh`: calls one function and writes its result to a file.

python -m benchmarks.child MODULE:FUNCTION RESULT ARGUMENTS
"""

import importlib
import json
import sys


def main() -> None:
    where, result, arguments = sys.argv[1:]
    module, _, function = where.partition(":")
    value = getattr(importlib.import_module(module), function)(*json.loads(arguments))
    with open(result, "w") as file:  # noqa: PTH123  importing pathlib would cost time
        json.dump(value, file)


if __name__ == "__main__":
    main()
