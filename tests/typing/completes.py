"""Completion by Jedi, which IPython uses, knows every public name."""

import jedi
import shared_numpy as snp

found = {each.name for each in jedi.Script("import shared_numpy as snp\nsnp.").complete()}
missing = {name for name in dir(snp) if not name.startswith("_")} - found
assert not missing, "not completed: {}".format(sorted(missing))
methods = jedi.Script("import shared_numpy as snp\nsnp.Queue().pu").complete()
assert "put_many" in {each.name for each in methods}
