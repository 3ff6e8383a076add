// Signed calls to Latchkey with fetch, and the verification of its webhooks. For Node and browsers; without dependencies.

const RETRIES = 3;
const PATIENCE_S = 60;
const CLOCK_TOLERANCE_S = 5;
const WEBHOOK_TOLERANCE_S = 300;
const SAFE_METHODS = new Set(["GET", "HEAD", "OPTIONS", "TRACE"]);

const encoder = new TextEncoder();

/** A signing key, with the difference between the clock of this machine and that of the server. */
export class Latchkey {
  #key;
  #aheadS = 0; // how far the server's clock is ahead of ours

  /**
   * form: "query" puts the signature into the query and the header `secret`, "message" into headers (RFC 9421).
   * idempotent: false for routes that do not accept an `Idempotency-Key`.
   * now: returns the Unix time in seconds.
   */
  constructor({ accessKey, secret, form = "query", idempotent = true, now = () => Date.now() / 1000 }) {
    if (!accessKey || !secret) throw new TypeError("The access key and the secret are needed.");
    if (form !== "query" && form !== "message") throw new TypeError('The form must be "query" or "message".');
    this.accessKey = accessKey;
    this.form = form;
    this.idempotent = idempotent;
    this.now = now;
    this.#key = hmacKey(encoder.encode(secret));
  }

  /**
   * Like `fetch`, with a body that is a string or bytes. A 401 is repeated once if the server's clock differs from ours.
   * 429 and 503 are repeated after `Retry-After` seconds, three times and for a minute at most.
   * An unsafe call has an `Idempotency-Key`, the same in each attempt: the server carries it out once.
   */
  async fetch(url, init = {}) {
    const method = (init.method ?? "GET").toUpperCase();
    const headers = new Headers(init.headers);
    const body = typeof init.body === "string" ? encoder.encode(init.body) : (init.body ?? null);
    if (body !== null && !(body instanceof Uint8Array)) throw new TypeError("The body must be a string or a Uint8Array.");
    if (body !== null && !headers.has("content-type")) headers.set("content-type", "application/json");
    const isSafe = SAFE_METHODS.has(method);
    if (this.idempotent && !isSafe && !headers.has("idempotency-key")) headers.set("idempotency-key", uuid());
    // Without an Idempotency-Key, a change that got a 503 may have been made.
    const repeated = isSafe || headers.has("idempotency-key") ? [429, 503] : [429];

    let corrected = false;
    let patienceS = PATIENCE_S;
    for (let retries = RETRIES; ; ) {
      const signed = await this.sign(method, url, headers, body);
      const sent = new Headers(headers);
      for (const [name, value] of Object.entries(signed.headers)) sent.set(name, value);
      const response = await fetch(signed.url, { redirect: "error", ...init, method, headers: sent, body });
      const after = response.headers.get("retry-after") ?? "";
      if (response.status === 401 && !corrected && this.#correctClock(response.headers.get("date"))) {
        corrected = true;
      } else if (repeated.includes(response.status) && retries > 0 && /^[0-9]+$/.test(after) && Number(after) <= patienceS) {
        retries -= 1;
        patienceS -= Number(after);
        await new Promise((resolve) => setTimeout(resolve, Number(after) * 1000));
      } else {
        return response;
      }
      await response.body?.cancel();
    }
  }

  /** Return the URL and the additional headers of a call; send it once, and exactly like this. */
  async sign(method, url, headers, body, { created = Math.floor(this.now() + this.#aheadS), nonce = uuid() } = {}) {
    const target = new URL(url, globalThis.location?.href);
    const query = target.search.slice(1);
    const bytes = body ?? new Uint8Array();
    if (this.form === "query") {
      const signed = { key: this.accessKey, timestamp: created, nonce, method, path: target.pathname };
      if (bytes.length || !SAFE_METHODS.has(method)) signed.content_sha256 = hex(await sha256(bytes));
      const own = Object.entries(signed).map(([name, value]) => `${name}=${quote(String(value))}`).join("&");
      const whole = query ? `${own}&${query}` : own;
      return { url: `${target.origin}${target.pathname}?${whole}`, headers: { secret: await this.mac(whole) } };
    }
    const added = {};
    const components = {
      "@method": method,
      "@authority": target.host,
      "@path": target.pathname,
      "@query": `?${query}`,
    };
    if (headers.has("content-type")) components["content-type"] = headers.get("content-type");
    if (bytes.length) {
      added["content-digest"] = `sha-256=:${base64(await sha256(bytes))}:`;
      components["content-digest"] = added["content-digest"];
    }
    if (headers.has("idempotency-key")) components["idempotency-key"] = headers.get("idempotency-key");
    const covered = Object.keys(components).map((name) => `"${name}"`).join(" ");
    const parameters = `(${covered});created=${created};keyid="${this.accessKey}";nonce="${nonce}";tag="latchkey-v1"`;
    const lines = Object.entries(components).map(([name, value]) => `"${name}": ${value}\n`).join("");
    added["signature-input"] = `sig1=${parameters}`;
    added.signature = `sig1=:${await this.mac(`${lines}"@signature-params": ${parameters}`)}:`;
    return { url: `${target.origin}${target.pathname}${query && `?${query}`}`, headers: added };
  }

  /** Return the HMAC-SHA256 of a text in base64. */
  async mac(text) {
    return base64(await crypto.subtle.sign("HMAC", await this.#key, encoder.encode(text)));
  }

  /** Use the time of the server, and return whether the clocks were different. Over http anybody on the way can change it. */
  #correctClock(date) {
    const aheadS = Date.parse(date ?? "") / 1000 - this.now();
    if (Number.isNaN(aheadS) || Math.abs(aheadS - this.#aheadS) <= CLOCK_TOLERANCE_S) return false;
    this.#aheadS = aheadS;
    return true;
  }
}

/** The request was not sent by Latchkey, or is too old; answer it with 400. */
export class WebhookError extends Error {}

/** Return the event of a webhook, or throw a WebhookError. `body` is what arrived, as bytes or as text that is not decoded. */
export async function verifyWebhook(secret, headers, body, now = Date.now() / 1000) {
  const given = new Headers(headers);
  const [id, timestamp, signatures] = ["id", "timestamp", "signature"].map((name) => given.get(`webhook-${name}`) ?? "");
  if (!/^[0-9]+$/.test(timestamp) || Math.abs(now - Number(timestamp)) > WEBHOOK_TOLERANCE_S) {
    throw new WebhookError("The timestamp is missing, or more than five minutes away.");
  }
  const key = await hmacKey(bytesOf(secret.replace(/^whsec_/, "")), "verify");
  const bytes = typeof body === "string" ? encoder.encode(body) : body;
  const text = new Uint8Array([...encoder.encode(`${id}.${timestamp}.`), ...bytes]);
  for (const signature of signatures.split(" ")) {
    if (!/^v1,[A-Za-z0-9+/]{43}=$/.test(signature)) continue;
    if (await crypto.subtle.verify("HMAC", key, bytesOf(signature.slice(3)), text)) {
      return JSON.parse(new TextDecoder().decode(bytes));
    }
  }
  throw new WebhookError("No signature is valid.");
}

const hmacKey = (bytes, use = "sign") =>
  crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, [use]);
const sha256 = (bytes) => crypto.subtle.digest("SHA-256", bytes);
const uuid = () => crypto.randomUUID();
const base64 = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));
const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
// encodeURIComponent leaves these five, which Latchkey reads alike; they are quoted as its other clients do.
const quote = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`);
