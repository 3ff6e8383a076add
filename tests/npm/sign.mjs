// Sign the request on standard input with npm's http-message-signatures, and print the headers to send with it.
// Its parameters are the library's own defaults, beside the nonce and the tag that the service requires.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSigner, defaultParams, httpbis } from "http-message-signatures";

const { method, url, body, fields, keyid, secret, nonce } = JSON.parse(readFileSync(0, "utf8"));
const headers = {};
if (body !== null) {
  headers["content-type"] = "application/json";
  headers["content-digest"] = `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;
}
const signed = await httpbis.signMessage(
  {
    key: createSigner(Buffer.from(secret), "hmac-sha256", keyid),
    params: [...defaultParams, "nonce", "tag"],
    paramValues: { nonce, tag: "latchkey-v1" },
    fields,
  },
  { method, url: new URL(url), headers },
);
console.log(JSON.stringify(signed.headers));
