"""What tests of served worlds share: tenants with fresh tokens."""

import json

from simservice.serving.tenants import hash_line, new_token


def tenants_file(folder, **tenants):
    """Writes a tenants file of names and quotas; gives its path and the tokens by name."""
    tokens = {name: new_token() for name in tenants}
    tables = {name: {"tokens": [hash_line(tokens[name])], **quotas} for name, quotas in tenants.items()}
    path = folder / "tenants.json"
    path.write_text(json.dumps({"tenants": tables}))
    return path, tokens
