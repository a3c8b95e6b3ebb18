"""The command ``shared-numpy``, the same as ``python -m shared_numpy``.

Each subcommand is a module with two functions: ``add_arguments(parser)`` and ``run(options)``, which
returns the exit code. (`run` has ``parse`` and ``run(words)``: all behind its program's name is the
program's.) `main` imports a subcommand's module when it is called, and no other; numpy is
imported only by those that make or show arrays. From the ground up:

`exit_codes`  the documented exit codes, and the exception that ends the command with one
`output`      tables, numbers and JSON on standard output, which may be closed at any time
`arguments`   options and names in any order
`findings`    what `doctor` tells, and ``snp.diagnose()``: each a `finding` of one of the checks,
              `check_installation`, `check_system` and `check_memory`
`survey`      what is in shared memory, and who uses it; for `ls`, `info`, `map`, `clean` and `doctor`:
              `names` and folders, `items` as they are told, what lies in `files`, and their `users`
`removal`     which of these things `clean` may remove, and how
`picture`     the drawing of an arena, for `map`
`startup`     a folder that `run` puts on PYTHONPATH: its ``sitecustomize`` installs the backport
`main`        the list of subcommands

What the command prints is for people, and may change with each version; programs read ``--json``.
"""
