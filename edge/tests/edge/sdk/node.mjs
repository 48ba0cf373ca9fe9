// The official SDK for Node.js against an edge: nothing is changed but the address.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.SDK}/`);
const Cloudflare = require("cloudflare");
const { VERSION } = require("cloudflare/version");

const client = new Cloudflare({ apiToken: process.env.TOKEN, baseURL: process.env.BASE_URL });
const account_id = process.env.ACCOUNT;
const live = process.env.TUNNEL;
const connector = process.env.CONNECTOR;
const zero = client.zeroTrust.tunnels;
const tunnels = zero.cloudflared;

async function all(list) {
  const found = [];
  for await (const one of list) found.push(one);
  return found;
}

async function refused(status, code, call) {
  await assert.rejects(call, (error) => {
    const codes = (error.errors ?? []).map((problem) => problem.code);
    assert.deepEqual([error.status, [...new Set(codes)]], [status, [code]], String(error));
    return true;
  });
}

const names = (list) => list.map((one) => one.name);

// Accounts and tokens.
const accounts = await all(client.accounts.list());
assert.deepEqual(accounts.map((one) => one.id), [account_id]);
assert.equal((await client.accounts.get({ account_id })).name, "main");
assert.equal((await client.user.tokens.verify()).status, "active");
assert.equal((await client.accounts.tokens.verify({ account_id })).status, "active");
await refused(404, 1003, () => client.accounts.get({ account_id: "0".repeat(32) }));

// Zones.
assert.deepEqual(names(await all(client.zones.list({ per_page: 1 }))), ["deep.example.com", "example.com"]);
const [zone] = await all(
  client.zones.list({ name: "example.com", account: { id: account_id }, status: "active" }),
);
const zone_id = zone.id;
assert.deepEqual(await client.zones.get({ zone_id }), zone);
await refused(404, 1003, () => client.zones.get({ zone_id: "0".repeat(32) }));

// Tunnels.
const made = [];
for (const number of [0, 1, 2]) {
  made.push(await tunnels.create({ account_id, name: `sdk-${number}`, config_src: "cloudflare" }));
}
const one = made[0];
assert.deepEqual([one.status, one.remote_config, one.deleted_at, one.tun_type], ["inactive", true, null, "cfd_tunnel"]);
await refused(409, 1013, () => tunnels.create({ account_id, name: "sdk-0" }));
assert.equal((await tunnels.get(one.id, { account_id })).id, one.id);
for (const kind of [tunnels, zero]) {
  const list = await all(kind.list({ account_id, is_deleted: false, per_page: 2 }));
  assert.deepEqual(names(list), ["live", "sdk-0", "sdk-1", "sdk-2"]);
  assert.deepEqual(names(await all(kind.list({ account_id, status: "healthy" }))), ["live"]);
  const page = await kind.list({ account_id, include_prefix: "sdk-", per_page: 2 });
  assert.deepEqual(page.result_info, { count: 2, page: 1, per_page: 2, total_count: 3, total_pages: 2 });
}
assert.equal((await all(zero.list({ account_id, tun_types: ["cfd_tunnel", "warp"] }))).length, 4);
assert.equal((await all(zero.list({ account_id, tun_types: ["warp"] }))).length, 0);
const secret = Buffer.from("this secret is long enough for a tunnel").toString("base64");
const renamed = await tunnels.edit(one.id, { account_id, name: "sdk-new", tunnel_secret: secret });
assert.deepEqual([renamed.id, renamed.name], [one.id, "sdk-new"]);
assert.match(await tunnels.token.get(one.id, { account_id }), /^ey/);
const gone = await tunnels.delete(made[2].id, { account_id });
assert.notEqual(gone.deleted_at, null);
await refused(404, 1003, () => tunnels.token.get(gone.id, { account_id }));
assert.match(await tunnels.management.create(live, { account_id, resources: ["logs"] }), /^ey[^.]+[.][^.]+[.][^.]+$/);
await refused(400, 1099, () => zero.warpConnector.create({ account_id, name: "w" }));

// Configurations.
assert.equal((await tunnels.configurations.get(one.id, { account_id })).config, null);
const config = {
  ingress: [
    { hostname: "app.example.com", service: "https://127.0.0.1:8443", originRequest: { noTLSVerify: true } },
    { service: "http_status:404" },
  ],
  originRequest: { keepAliveConnections: 50 },
};
const put = await tunnels.configurations.update(one.id, { account_id, config });
assert.deepEqual([put.version, put.source, put.config], [1, "cloudflare", config]);
assert.deepEqual((await tunnels.configurations.get(one.id, { account_id })).config, config);
const wrong = { ingress: [{ hostname: "app.example.com", service: "nothing://" }] };
await refused(400, 1002, () => tunnels.configurations.update(one.id, { account_id, config: wrong }));

// Connections.
const [connected] = await all(tunnels.connections.get(live, { account_id }));
assert.deepEqual([connected.id, connected.conns.length], [connector, 4]);
assert.equal((await tunnels.connectors.get(connector, { account_id, tunnel_id: live })).id, connector);
await refused(404, 1003, () => tunnels.connectors.get(one.id, { account_id, tunnel_id: live }));
await refused(400, 1022, () => tunnels.delete(live, { account_id }));
await tunnels.connections.delete(live, { account_id, client_id: connector });

// Records.
const records = client.dns.records;
const [target, other] = [`${one.id}.cfargotunnel.com`, `${made[1].id}.tunnels.test`];
const cname = { zone_id, type: "CNAME", ttl: 1 };
const record = await records.create({ ...cname, name: "app", content: target, proxied: true, comment: "of the shop" });
assert.deepEqual(
  [record.name, record.content, record.proxied, record.ttl, record.comment, record.tags],
  ["app.example.com", target, true, 1, "of the shop", []],
);
const apex = await records.create({ ...cname, name: "@", content: other, ttl: 300, tags: ["team:shop"] });
assert.deepEqual([apex.name, apex.ttl, apex.proxied, apex.tags], ["example.com", 300, false, ["team:shop"]]);
assert.deepEqual(await records.get(record.id, { zone_id }), record);
assert.equal((await all(records.list({ zone_id, per_page: 1 }))).length, 2);
for (const [query, wanted] of [
  [{ name: { exact: "app.example.com" } }, [record]],
  [{ name: { startswith: "app" }, type: "CNAME", proxied: true }, [record]],
  [{ content: { exact: target } }, [record]],
  [{ comment: { contains: "SHOP" } }, [record]],
  [{ comment: { absent: "" } }, [apex]],
  [{ tag: { exact: "team:shop" } }, [apex]],
  [{ name: { exact: "no.example.com" }, comment: { present: "" }, match: "any" }, [record]],
  [{ order: "name", direction: "desc" }, [apex, record]],
  [{ type: "TXT" }, []],
]) {
  assert.deepEqual(await all(records.list({ zone_id, ...query })), wanted, JSON.stringify(query));
}
const changed = await records.update(record.id, { ...cname, name: "web.example.com", content: other });
assert.deepEqual([changed.id, changed.name, changed.content, changed.comment], [record.id, "web.example.com", other, null]);
const edited = await records.edit(record.id, { ...cname, name: "web.example.com", comment: "again" });
assert.deepEqual([edited.content, edited.comment], [other, "again"]);
const done = await records.batch({
  zone_id,
  deletes: [{ id: apex.id }],
  puts: [{ id: record.id, name: "old.example.com", type: "CNAME", content: target, ttl: 1 }],
  posts: [{ name: "web", type: "CNAME", content: target, ttl: 1 }],
});
assert.deepEqual(done.deletes.map((one) => one.id), [apex.id]);
assert.deepEqual(names([...done.puts, ...done.posts]), ["old.example.com", "web.example.com"]);
await refused(404, 81044, () => records.get(apex.id, { zone_id }));
for (const [code, wish] of [
  [81053, { type: "CNAME", name: "web", content: target }],
  [9007, { type: "CNAME", name: "new", content: "example.org" }],
  [1002, { type: "CNAME", name: "x.deep.example.com", content: target }],
  [1099, { type: "A", name: "new", content: "192.0.2.1" }],
]) {
  await refused(400, code, () => records.create({ zone_id, ttl: 1, ...wish }));
}
await refused(400, 1099, () => records.export({ zone_id }));
await refused(400, 1099, () => records.import({ zone_id, file: "a. 1 IN A 192.0.2.1" }));
await refused(400, 1099, () => records.scanTrigger({ zone_id }));
assert.equal((await records.delete(record.id, { zone_id })).id, record.id);
await refused(404, 81044, () => records.delete(record.id, { zone_id }));

// What leads to a tunnel goes with it.
await tunnels.delete(one.id, { account_id });
assert.deepEqual(await all(records.list({ zone_id })), []);

// No token, no answer.
const stranger = client.withOptions({ apiToken: "adit_none_at_all", maxRetries: 0 });
await refused(401, 10000, () => stranger.zones.get({ zone_id }));
console.log(`node ${VERSION}: done`);
