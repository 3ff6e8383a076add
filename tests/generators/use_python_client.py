"""Use the client that openapi-python-client generated, in its own environment: `python use_python_client.py URL SECRET USER_ID`."""

import sys

from latchkey_client import AuthenticatedClient
from latchkey_client.api.gate import replace_gate_rules
from latchkey_client.api.keys import change_key, create_key, list_keys, read_key, revoke_key, verify_key
from latchkey_client.api.me import read_me
from latchkey_client.models import (
    JsonObject,
    KeyChange,
    KeyMode,
    KeyPage,
    KeyStatus,
    KeyWithSecret,
    Me,
    NamedRule,
    NewGateRules,
    NewKey,
    Problem,
    Verified,
    Verify,
)

url, secret, user_id = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=secret)

me = read_me.sync(client=client)
assert isinstance(me, Me)
assert me.key.status is KeyStatus.ACTIVE

made = create_key.sync(
    client=client, body=NewKey(user_id=int(user_id), name="from Python", mode=KeyMode.BEARER, scopes=[])
)
assert isinstance(made, KeyWithSecret)
assert made.secret

meta = JsonObject.from_dict({"plan": "gold"})
changed = change_key.sync(made.access_key, client=client, body=KeyChange(meta=meta))
assert changed.meta.to_dict() == {"plan": "gold"}

page = list_keys.sync(client=client, limit=1, status=KeyStatus.ACTIVE, environment="live")
assert isinstance(page, KeyPage)
assert len(page.data) == 1

rule = NamedRule(name="orders", paths=["/orders/**"], any_key=True)
assert replace_gate_rules.sync(client=client, body=NewGateRules(data=[rule])).version

verified = verify_key.sync(client=client, body=Verify(credential=made.secret))
assert isinstance(verified, Verified)
assert verified.valid

assert revoke_key.sync_detailed(made.access_key, client=client).status_code == 204
problem = read_key.sync("lka_0000000000000000000000", client=client)
assert isinstance(problem, Problem)
assert problem.code == "not_found"
