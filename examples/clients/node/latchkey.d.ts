/** The place of the signature: the query, or headers (RFC 9421). */
export type Form = "query" | "message";

export interface LatchkeyOptions {
  /** The access key, `lka_…`. */
  accessKey: string;
  /** The whole secret, `lks_…`. */
  secret: string;
  /** `"query"` by default. */
  form?: Form;
  /** False for routes that do not accept an `Idempotency-Key`. */
  idempotent?: boolean;
  /** Returns the Unix time in seconds. */
  now?: () => number;
}

/** What `fetch` takes, with a body that can be signed. */
export interface CallOptions extends Omit<RequestInit, "body"> {
  body?: string | Uint8Array<ArrayBuffer> | null;
}

export interface SignedCall {
  url: string;
  /** To be sent in addition. */
  headers: Record<string, string>;
}

/** A signing key, with the difference between the clock of this machine and that of the server. */
export class Latchkey {
  readonly accessKey: string;
  readonly form: Form;
  readonly idempotent: boolean;
  readonly now: () => number;
  constructor(options: LatchkeyOptions);
  /** Sign a call, send it, and repeat it where that is safe. */
  fetch(url: string | URL, init?: CallOptions): Promise<Response>;
  /** Return the URL and the additional headers of a call; send it once, and exactly like this. */
  sign(
    method: string,
    url: string | URL,
    headers: Headers,
    body: Uint8Array<ArrayBuffer> | null,
    values?: { created?: number; nonce?: string },
  ): Promise<SignedCall>;
  /** Return the HMAC-SHA256 of a text in base64. */
  mac(text: string): Promise<string>;
}

/** The request was not sent by Latchkey, or is too old; answer it with 400. */
export class WebhookError extends Error {}

export interface WebhookEvent {
  type: string;
  timestamp: string;
  data: Record<string, unknown>;
}

/**
 * Return the event of a webhook, or throw a WebhookError.
 *
 * @param body what arrived, as bytes or as text; not decoded JSON.
 * @param now Unix time in seconds; the current time by default.
 */
export function verifyWebhook(
  secret: string,
  headers: HeadersInit,
  body: string | Uint8Array<ArrayBuffer>,
  now?: number,
): Promise<WebhookEvent>;
