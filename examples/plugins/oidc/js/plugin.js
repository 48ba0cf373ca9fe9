// Has visitors sign in at an OpenID provider before they reach a service: authorization code, PKCE, state and nonce,
// RS256, and a signed cookie for an hour.

import { now } from "adit:plugin/clock@0.1.0";
import { digest, randomBytes, verify } from "adit:plugin/crypto@0.1.0";
import { send } from "adit:plugin/http-client@0.1.0";
import { hmac, verifyHmac } from "adit:plugin/keyed@0.1.0";
import { read } from "adit:plugin/secret@0.1.0";

// `here` is how visitors reach this, such as "https://app.example.com".
let issuer, clientId, here;

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const bytes = (text) => Uint8Array.from(unescape(encodeURIComponent(text)), (char) => char.charCodeAt(0));
const text = (bytes) => decodeURIComponent(escape(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")));
const bits = (values, size) => Array.from(values, (value) => value.toString(2).padStart(size, "0")).join("");
const encode = (bytes) => bits(bytes, 8).replace(/.{1,6}/g, (part) => DIGITS[parseInt(part.padEnd(6, "0"), 2)]);
const decode = (word) =>
  Uint8Array.from(bits(Array.from(word, (char) => DIGITS.indexOf(char)), 6).match(/.{8}/g) ?? [], (part) => parseInt(part, 2));
const form = (fields) => Object.entries(fields).map((field) => field.map(encodeURIComponent).join("=")).join("&");
const seconds = () => Math.floor(now() / 1000);

// What a browser keeps and cannot change; what it is for is a part of what is signed.
function keep(name, value, lasts) {
  const said = encode(bytes(JSON.stringify([name, seconds() + lasts, value])));
  const signed = `${said}.${encode(hmac("sha256", "cookie", bytes(said)))}`;
  return ["set-cookie", `${prefix()}${name}=${signed}; Path=/; Max-Age=${lasts}; HttpOnly; SameSite=Lax${here.startsWith("https:") ? "; Secure" : ""}`];
}
const prefix = () => (here.startsWith("https:") ? "__Host-" : "");
function kept(name, headers) {
  for (const pair of headers.filter(([known]) => known === "cookie").flatMap(([, line]) => line.split(/; */))) {
    const [known, said, tag] = pair.split(/[=.]/);
    if (known !== prefix() + name || !tag || !verifyHmac("sha256", "cookie", bytes(said), decode(tag))) continue;
    const [purpose, until, value] = JSON.parse(text(decode(said)));
    if (purpose === name && seconds() < until) return value;
  }
}

const respond = (status, headers = [], body = "") => ({ tag: "respond", val: { status, headers: [["cache-control", "no-store"], ...headers], body: bytes(body) } });
function ask(url, headers = [], body = "") {
  const answer = send({ method: body ? "POST" : "GET", url, headers, body: bytes(body), timeoutMs: 5000, redirects: 0 });
  if (answer.status !== 200) throw new Error(`${url}: status ${answer.status}`);
  return JSON.parse(text(answer.body));
}
function provider() {
  const found = ask(`${issuer}/.well-known/openid-configuration`);
  if (found.issuer !== issuer) throw new Error(`the document is of ${found.issuer}`);
  return found;
}

function begin(path) {
  const [state, nonce, verifier] = [0, 1, 2].map(() => encode(randomBytes(32)));
  const query = form({
    response_type: "code", client_id: clientId, redirect_uri: `${here}/js/callback`, scope: "openid", state, nonce,
    code_challenge: encode(digest("sha256", bytes(verifier))), code_challenge_method: "S256",
  });
  return respond(302, [["location", `${provider().authorization_endpoint}?${query}`], keep("js-login", { state, nonce, verifier, path }, 600)]);
}

function finish(query, headers) {
  const told = Object.fromEntries(query.split("&").map((pair) => pair.split("=").map(decodeURIComponent)));
  const begun = kept("js-login", headers);
  if (!begun || !told.code || told.state !== begun.state || (told.iss ?? issuer) !== issuer) return respond(400);
  const found = provider();
  const pair = [clientId, text(read("client"))].map(encodeURIComponent).join(":");
  const basic = encode(bytes(pair)).replace(/-/g, "+").replace(/_/g, "/");
  const { id_token } = ask(
    found.token_endpoint,
    [["authorization", `Basic ${basic.padEnd(Math.ceil(basic.length / 4) * 4, "=")}`], ["content-type", "application/x-www-form-urlencoded"]],
    form({ grant_type: "authorization_code", code: told.code, redirect_uri: `${here}/js/callback`, code_verifier: begun.verifier }),
  );
  const [head, body, signature] = id_token.split(".");
  const { alg, kid } = JSON.parse(text(decode(head)));
  const key = ask(found.jwks_uri).keys.find((key) => key.kid === kid);
  if (alg !== "RS256" || !key || !verify("rs256", { tag: "jwk", val: JSON.stringify(key) }, bytes(`${head}.${body}`), decode(signature))) return respond(403);
  const { iss, aud, exp, nonce, sub } = JSON.parse(text(decode(body)));
  if (iss !== issuer || aud !== clientId || nonce !== begun.nonce || !(exp > seconds() - 30) || !sub) return respond(403);
  return respond(302, [["location", here + begun.path], keep("js-session", sub, 3600), keep("js-login", null, 0)]);
}

export const lifecycle = {
  describe: () => ({ name: "oidc", version: "0.1.0", requestHeaders: ["accept", "cookie"], responseHeaders: [] }),
  configure(config) {
    ({ issuer, clientId, here } = JSON.parse(config));
    if (!issuer || !clientId || !here) throw [{ code: "", message: "issuer, clientId and here are needed" }];
  },
};

export const requestFilter = {
  onRequest({ method, pathWithQuery, headers }) {
    const sub = kept("js-session", headers);
    if (sub) return { tag: "edit", val: { headers: [{ tag: "set", val: ["x-user", sub] }], carry: new Uint8Array() } };
    const [path, query = ""] = pathWithQuery.split("?");
    const isPage = method === "GET" && headers.some(([name, value]) => name === "accept" && value.includes("text/html"));
    try {
      if (path === "/js/callback") return finish(query, headers);
      return isPage ? begin(pathWithQuery) : respond(401);
    } catch {
      // Nobody comes in whom nobody vouches for.
      return respond(503, [], "nobody can sign in at the moment\n");
    }
  },
};
