"""A web server with one interpreter for each application (mod_wsgi) imports the package in the
second one: it is told at once that only the first can use it."""
# methods: none
# needs: CPython>=3.13 _interpreters
# prints: the first: 3.0
# prints: the second: ImportError ...WSGIApplicationGroup...

import _interpreters

import shared_numpy as snp

CODE = """
try:
    import shared_numpy as snp
    snp.zeros(3)
except ImportError as error:
    print("the second: ImportError", error, flush=True)
"""

if __name__ == "__main__":
    print("the first:", snp.ones(3).sum(), flush=True)
    number = _interpreters.create("legacy")
    _interpreters.run_string(number, CODE)
    _interpreters.destroy(number)
