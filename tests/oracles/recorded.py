"""What the scripts that record other packages share: the packages' versions, the file beside the script, and --check."""

import argparse
import json
import os
import sys
import tempfile
from importlib.metadata import version

import numpy as np

TOLERANCE = 1e-12


def write(file, arrays):
    """All or nothing: a reader never finds half a file."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez_compressed(stream, **arrays)
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def differences(new, old):
    """One line for each key that does not agree."""
    for key in sorted(new.keys() | old.keys()):
        if key not in new or key not in old:
            yield f"{key}: only in the {'committed' if key in old else 'regenerated'} file"
        elif key == "meta":
            if json.loads(str(new[key])) != json.loads(str(old[key])):
                yield f"meta: {new[key]} instead of {old[key]}"
        elif new[key].shape != old[key].shape or new[key].dtype != old[key].dtype:
            yield f"{key}: {new[key].dtype}{new[key].shape} instead of {old[key].dtype}{old[key].shape}"
        elif not (gap := np.max(np.abs(new[key] - old[key]) / (1 + np.abs(old[key])))) <= TOLERANCE:
            yield f"{key}: differs by {gap:.2e}"


def main(doc, file, compute, versions):
    """Write the file, or with --check compare with it; the packages must be the ones it is of."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed file; exit 1 if different"
    )
    check = parser.parse_args().check
    here = {name: version(name).partition("+")[0] for name in versions}
    if here != versions:
        sys.exit(f"the file is of {versions}; here are {here}")
    new = compute()
    if not check:
        write(file, new)
        print(f"wrote {file} ({file.stat().st_size / 1000:.0f} kB, {len(new)} arrays)")
        return 0
    with np.load(file) as old:
        found = list(differences(new, dict(old)))
    print(
        "\n".join(found)
        or f"{file.name} is what {', '.join(f'{k} {v}' for k, v in versions.items())} compute"
    )
    return 1 if found else 0
