// An OpenID provider, `oidc-provider` as npm has it, for the tests of signing in. Whoever gives a name is signed in by
// that name: "ada" is of the groups staff and friends, all others of none.
//
// PROVIDER is a folder whose node_modules has it, PORT where it listens (0: anywhere), HERE the address of the services,
// KEY the name of its keys. It prints where it is, and ends with its standard input.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { PROVIDER, PORT, HERE, KEY } = process.env;
const require = createRequire(`${PROVIDER}/package.json`);
const { default: Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));

const server = createServer();
await new Promise((resolve) => server.listen(Number(PORT), "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const key = (kind, options, alg) => ({
  ...generateKeyPairSync(kind, options).privateKey.export({ format: "jwk" }),
  kid: `${KEY}-${alg}`,
  alg,
  use: "sig",
});
const client = (id, alg, more) => ({
  client_id: id,
  redirect_uris: [`${HERE}/${id}/callback`],
  post_logout_redirect_uris: [`${HERE}/bye`],
  response_types: ["code"],
  id_token_signed_response_alg: alg,
  ...more,
});
const secret = { client_secret: "a/secret:of+two%" };
const provider = new Provider(issuer, {
  clients: [
    client("one", "RS256", secret),
    client("js", "RS256", secret),
    client("two", "ES256", { ...secret, token_endpoint_auth_method: "client_secret_post" }),
    client("public", "EdDSA", { token_endpoint_auth_method: "none" }),
  ],
  jwks: {
    keys: [
      key("rsa", { modulusLength: 2048 }, "RS256"),
      key("ec", { namedCurve: "P-256" }, "ES256"),
      key("ed25519", {}, "EdDSA"),
    ],
  },
  enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256", "EdDSA"] },
  cookies: { keys: ["of no use to anybody"] },
  claims: { openid: ["sub", "groups"], email: ["email"], profile: ["name"] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      email: `${id}@example.com`,
      name: `${id} the first`,
      groups: id === "ada" ? ["staff", "friends"] : [],
    }),
  }),
});
server.on("request", provider.callback());
console.log(`provider at ${issuer}`);
process.stdin.on("end", () => process.exit()).resume();
