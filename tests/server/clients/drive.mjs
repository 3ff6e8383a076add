// Drive the client for Node; drive.py lists the commands.
import { readFileSync } from "node:fs";
import { Latchkey, verifyWebhook } from "../../../examples/clients/node/latchkey.js";

const { KEY: accessKey, SECRET: secret } = process.env;
const [command, ...given] = process.argv.slice(2);

const commands = {
  async mac(secret, ...texts) {
    const client = new Latchkey({ accessKey, secret });
    return (await Promise.all(texts.map((text) => client.mac(text)))).join("\n");
  },
  async sign(form, method, url, body, type, idempotencyKey, created, nonce) {
    const sent = Object.entries({ "content-type": type, "idempotency-key": idempotencyKey });
    const headers = new Headers(sent.filter(([, value]) => value));
    const bytes = body ? new TextEncoder().encode(body) : null;
    const signed = await new Latchkey({ accessKey, secret, form }).sign(method, url, headers, bytes, { created, nonce });
    return [signed.url, ...Object.entries(signed.headers).map(([name, value]) => `${name}: ${value}`)].join("\n");
  },
  async call(form, method, url, body, offsetS) {
    const now = () => Date.now() / 1000 + Number(offsetS);
    const response = await new Latchkey({ accessKey, secret, form, now }).fetch(url, { method, body: body || null });
    return `${response.status}\n${await response.text()}`;
  },
  async verify(secret, id, timestamp, signature) {
    const headers = { "Webhook-Id": id, "Webhook-Timestamp": timestamp, "Webhook-Signature": signature };
    try {
      return `valid ${(await verifyWebhook(secret, headers, readFileSync(0))).type}`;
    } catch (error) {
      return error.constructor.name === "WebhookError" ? "invalid" : String(error);
    }
  },
};
console.log(await commands[command](...given));
