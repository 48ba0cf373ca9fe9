"""The official Python SDK against an edge: nothing is changed but the address.

Its answers are validated strictly, so that a field of the wrong shape fails here as it would in a program that
trusts the SDK's types.
"""

import os

import cloudflare
from cloudflare import Cloudflare

client = Cloudflare(
    api_token=os.environ["TOKEN"],
    base_url=os.environ["BASE_URL"],
    _strict_response_validation=True,
)
account = os.environ["ACCOUNT"]
live, connector = os.environ["TUNNEL"], os.environ["CONNECTOR"]
zero = client.zero_trust.tunnels
tunnels = zero.cloudflared


def refused(kind, code, call):
    try:
        call()
    except kind as error:
        codes = [problem.code for problem in error.errors]
        assert codes and set(codes) == {code}, (codes, error)
        assert all(problem.message for problem in error.errors), error
        return
    raise AssertionError(f"not refused with {kind.__name__}")


# Accounts and tokens.
accounts = list(client.accounts.list())
assert [one.id for one in accounts] == [account], accounts
assert client.accounts.get(account_id=account).name == accounts[0].name == "main"
refused(cloudflare.NotFoundError, 1003, lambda: client.accounts.get(account_id="0" * 32))
assert client.user.tokens.verify().status == "active"
assert client.accounts.tokens.verify(account_id=account).status == "active"

# Zones.
assert {zone.name for zone in client.zones.list()} == {"example.com", "deep.example.com"}
assert len(list(client.zones.list(per_page=1))) == 2
assert [zone.name for zone in client.zones.list(name="contains:deep")] == ["deep.example.com"]
assert not list(client.zones.list(account={"id": "0" * 32}))
[zone] = list(client.zones.list(name="example.com", account={"id": account}, status="active"))
assert client.zones.get(zone_id=zone.id) == zone
assert zone.account.id == account and zone.plan.is_subscribed is False
refused(cloudflare.NotFoundError, 1003, lambda: client.zones.get(zone_id="0" * 32))

# Tunnels.
made = [tunnels.create(account_id=account, name=f"sdk-{number}", config_src="cloudflare") for number in range(3)]
one = made[0]
assert one.name == "sdk-0" and one.status == "inactive" and one.remote_config and one.deleted_at is None
assert one.account_tag == account and one.tun_type == "cfd_tunnel" and one.connections == []
refused(cloudflare.ConflictError, 1013, lambda: tunnels.create(account_id=account, name="sdk-0"))
refused(cloudflare.BadRequestError, 1002, lambda: tunnels.create(account_id=account, name="short", tunnel_secret="AA=="))
assert tunnels.get(one.id, account_id=account).id == one.id
for kind in (tunnels, zero):
    names = [tunnel.name for tunnel in kind.list(account_id=account, is_deleted=False, per_page=2)]
    assert names == ["live", "sdk-0", "sdk-1", "sdk-2"], names
    assert [tunnel.id for tunnel in kind.list(account_id=account, name="sdk-1")] == [made[1].id]
    assert [tunnel.id for tunnel in kind.list(account_id=account, status="healthy")] == [live]
    page = kind.list(account_id=account, include_prefix="sdk-", per_page=2)
    assert (page.result_info.page, page.result_info.per_page, len(page.result)) == (1, 2, 2)
assert len(list(zero.list(account_id=account, tun_types=["cfd_tunnel", "warp_connector"]))) == 4
assert not list(zero.list(account_id=account, tun_types=["warp_connector", "gre"]))
secret = "dGhpcyBzZWNyZXQgaXMgbG9uZyBlbm91Z2ggZm9yIGEgdHVubmVs"
edited = tunnels.edit(one.id, account_id=account, name="sdk-new", tunnel_secret=secret)
assert (edited.id, edited.name) == (one.id, "sdk-new")
assert tunnels.token.get(one.id, account_id=account).startswith("ey")
gone = tunnels.delete(made[2].id, account_id=account)
assert gone.deleted_at is not None
assert [tunnel.id for tunnel in tunnels.list(account_id=account, is_deleted=True)] == [gone.id]
refused(cloudflare.NotFoundError, 1003, lambda: tunnels.token.get(gone.id, account_id=account))
assert tunnels.management.create(live, account_id=account, resources=["logs"]).count(".") == 2
refused(cloudflare.BadRequestError, 1099, lambda: zero.warp_connector.create(account_id=account, name="w"))

# Configurations.
nothing = tunnels.configurations.get(one.id, account_id=account)
assert (nothing.config, nothing.version, nothing.tunnel_id) == (None, 0, one.id)
ingress = [
    {
        "hostname": "app.example.com",
        "path": "/api",
        "service": "https://127.0.0.1:8443",
        "origin_request": {"no_tls_verify": True, "connect_timeout": 10, "http_host_header": "app"},
    },
    {"service": "http_status:404"},
]
config = {"ingress": ingress, "origin_request": {"keep_alive_connections": 50, "tcp_keep_alive": 30}}
# Not so strictly: the last rule is for every name and has none, which the SDK's type of an answer does not know.
lax = Cloudflare(api_token=client.api_token, base_url=client.base_url)
configurations = lax.zero_trust.tunnels.cloudflared.configurations
put = configurations.update(one.id, account_id=account, config=config)
assert put.version == 1 and put.source == "cloudflare" and put.account_id == account
kept = configurations.get(one.id, account_id=account)
assert kept.version == put.version
first, last = kept.config.ingress
assert first.origin_request.no_tls_verify and first.origin_request.connect_timeout == 10
assert (first.hostname, first.path, last.service) == ("app.example.com", "/api", "http_status:404")
assert (kept.config.origin_request.keep_alive_connections, kept.config.origin_request.tcp_keep_alive) == (50, 30)
wrong = {"ingress": [{"hostname": "app.example.com", "service": "nothing://"}]}
refused(
    cloudflare.BadRequestError,
    1002,
    lambda: tunnels.configurations.update(one.id, account_id=account, config=wrong),
)

# Connections.
[client_] = list(tunnels.connections.get(live, account_id=account))
assert client_.id == connector and len(client_.conns) == 4 and client_.version
found = tunnels.connectors.get(connector, account_id=account, tunnel_id=live)
assert {conn.client_id for conn in found.conns} == {connector}
assert len(tunnels.get(live, account_id=account).connections) == 4
refused(
    cloudflare.NotFoundError,
    1003,
    lambda: tunnels.connectors.get(one.id, account_id=account, tunnel_id=live),
)
refused(cloudflare.BadRequestError, 1022, lambda: tunnels.delete(live, account_id=account))
tunnels.connections.delete(live, account_id=account, client_id=connector)

# Records.
records = client.dns.records
target, other = f"{one.id}.cfargotunnel.com", f"{made[1].id}.tunnels.test"
cname = dict(zone_id=zone.id, type="CNAME")
record = records.create(**cname, name="app", content=target, ttl=1, proxied=True, comment="of the shop")
assert (record.name, record.content, record.type) == ("app.example.com", target, "CNAME")
assert record.proxied and record.proxiable and record.ttl == 1 and record.comment == "of the shop"
assert record.tags == [] and record.created_on == record.modified_on
apex = records.create(**cname, name="@", content=other, ttl=300, tags=["team:shop"])
assert (apex.name, apex.content, apex.ttl, apex.proxied) == ("example.com", other, 300, False)
assert apex.tags == ["team:shop"]
assert records.get(record.id, zone_id=zone.id) == record
assert [one.name for one in records.list(zone_id=zone.id)] == ["app.example.com", "example.com"]
assert len(list(records.list(zone_id=zone.id, per_page=1))) == 2
for query, wanted in [
    ({"name": {"exact": "app.example.com"}}, [record]),
    ({"name": {"startswith": "app"}, "type": "CNAME", "proxied": True}, [record]),
    ({"content": {"exact": target}}, [record]),
    ({"content": {"exact": f"{one.id}.tunnels.test"}}, [record]),
    ({"comment": {"contains": "SHOP"}}, [record]),
    ({"comment": {"absent": "true"}}, [apex]),
    ({"tag": {"exact": "team:shop"}}, [apex]),
    ({"name": {"exact": "no.example.com"}, "comment": {"present": "true"}, "match": "any"}, [record]),
    ({"order": "name", "direction": "desc"}, [apex, record]),
    ({"type": "TXT"}, []),
    ({"search": "shop"}, [record, apex]),
]:
    found = list(records.list(zone_id=zone.id, **query))
    assert found == wanted, (query, found)
changed = records.update(record.id, **cname, name="web.example.com", content=other, ttl=1, proxied=True)
assert (changed.id, changed.name, changed.content, changed.comment) == (record.id, "web.example.com", other, None)
assert changed.created_on == record.created_on and changed.modified_on > record.modified_on
edited = records.edit(record.id, **cname, name="web.example.com", ttl=1, comment="again")
assert (edited.content, edited.comment, edited.proxied) == (other, "again", True)
assert edited.comment_modified_on == edited.modified_on
done = records.batch(
    zone_id=zone.id,
    deletes=[{"id": apex.id}],
    patches=[{"id": record.id, "name": "old.example.com", "type": "CNAME", "ttl": 1}],
    posts=[{"name": "web", "type": "CNAME", "content": target, "ttl": 1}],
)
assert [one.id for one in done.deletes] == [apex.id]
assert [one.name for one in done.patches + done.posts] == ["old.example.com", "web.example.com"]
refused(cloudflare.NotFoundError, 81044, lambda: records.get(apex.id, zone_id=zone.id))
for code, wish in [
    (81053, {"type": "CNAME", "name": "web", "content": target}),
    (9007, {"type": "CNAME", "name": "new", "content": "example.org"}),
    (9007, {"type": "CNAME", "name": "new", "content": f"{gone.id}.cfargotunnel.com"}),
    (1002, {"type": "CNAME", "name": "x.deep.example.com", "content": target}),
    (1099, {"type": "A", "name": "new", "content": "192.0.2.1"}),
    (1099, {"type": "TXT", "name": "new", "content": "a text"}),
]:
    refused(cloudflare.BadRequestError, code, lambda: records.create(zone_id=zone.id, ttl=1, **wish))
# All of a batch or nothing.
refused(
    cloudflare.BadRequestError,
    1099,
    lambda: records.batch(
        zone_id=zone.id,
        deletes=[{"id": record.id}],
        posts=[{"type": "A", "name": "new", "content": "192.0.2.1", "ttl": 1}],
    ),
)
assert records.get(record.id, zone_id=zone.id).name == "old.example.com"
refused(cloudflare.BadRequestError, 1099, lambda: records.export(zone_id=zone.id))
refused(cloudflare.BadRequestError, 1099, lambda: records.import_(zone_id=zone.id, file="a. 1 IN A 192.0.2.1"))
refused(cloudflare.BadRequestError, 1099, lambda: records.scan_trigger(zone_id=zone.id))
assert records.delete(record.id, zone_id=zone.id).id == record.id
refused(cloudflare.NotFoundError, 81044, lambda: records.delete(record.id, zone_id=zone.id))

# What leads to a tunnel goes with it.
tunnels.delete(one.id, account_id=account)
assert not list(records.list(zone_id=zone.id))

# No token, no answer.
stranger = client.with_options(api_token="adit_none_at_all", max_retries=0)
refused(cloudflare.AuthenticationError, 10000, lambda: stranger.zones.get(zone_id=zone.id))
print(f"python {cloudflare.__version__}: done")
