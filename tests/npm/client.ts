// A client whose types `openapi-typescript` makes from docs/openapi.json; `tsc` checks it, and it has no casts.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[]; exit(code: number): never };

const [, , url = "", secret = "", userId = "0"] = process.argv;
const client = createClient<paths>({ baseUrl: url, headers: { authorization: `Bearer ${secret}` } });

function expect(holds: boolean, what: string): void {
  if (!holds) {
    console.error(what);
    process.exit(1);
  }
}

const me = await client.GET("/v1/me");
if (me.data === undefined) {
  throw new Error(me.error.code);
}
const status: components["schemas"]["KeyStatus"] = me.data.key.status;
expect(status === "active", "the key is active");

// Fields with a default are optional in a request.
const made = await client.POST("/v1/keys", {
  body: { user_id: Number(userId), name: "from TypeScript", mode: "bearer", scopes: [] },
});
if (made.data === undefined) {
  throw new Error(made.error.detail);
}
expect(made.data.secret !== null && made.data.roles.length === 0, "a new key has a secret and no roles");

const path = { access_key: made.data.access_key };
const changed = await client.PATCH("/v1/keys/{access_key}", { params: { path }, body: { meta: { plan: "gold" } } });
expect(changed.data?.meta["plan"] === "gold", "the metadata are changed");

const page = await client.GET("/v1/keys", { params: { query: { status: "active", limit: 1, environment: "live" } } });
expect(page.data?.data.length === 1 && page.data.next_cursor !== null, "the first page has one key");

const rules = await client.PUT("/v1/gate/rules", {
  body: { data: [{ name: "orders", paths: ["/orders/**"], any_key: true }] },
});
expect(rules.data?.version === 1, "the rules of the gate are stored");

const verified = await client.POST("/v1/keys/verify", { body: { credential: made.data.secret ?? "" } });
expect(verified.data?.code === "valid", "the new key is valid");

const revoked = await client.DELETE("/v1/keys/{access_key}", { params: { path } });
expect(revoked.response.status === 204, "the key is revoked");

const absent = await client.GET("/v1/keys/{access_key}", { params: { path: { access_key: "lka_0000000000000000000000" } } });
expect(absent.error?.code === "not_found", "another key is a problem");
console.log("done");
